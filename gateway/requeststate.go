package gateway

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/gateway/upstream"
	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

// requestState is the gateway's per-request state. One goroutine uses it at a time. It
// outlives the handler, because access logs read placeholders afterwards.
type requestState struct {
	gateway *Gateway
	route   *Route
	backend string
	path    string // used for routing
	host    string // sent by the client

	upstream.Request

	failure string // the reason why the backend did not respond

	own trust.ProxyFields // values of X-Real-IP and X-Forwarded-Port

	looped bool // the request has passed this process before
}

// newRequestState creates the state of a request and stores it for later handlers.
func newRequestState(r *http.Request, g *Gateway, route *Route) *requestState {
	state := &requestState{gateway: g, route: route, path: r.URL.Path, host: r.Host, Request: upstream.Request{Limits: route.limits}}
	caddyhttp.SetVar(r.Context(), policy.RequestStateVar, state)
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(state.placeholder)
	}
	return state
}

// requestStateOf returns the state of a request, or nil outside of a gateway.
func requestStateOf(r *http.Request) *requestState {
	state, _ := caddyhttp.GetVar(r.Context(), policy.RequestStateVar).(*requestState)
	return state
}

func (state *requestState) placeholder(key string) (any, bool) {
	switch key {
	case "http.rgate.gateway":
		return state.gateway.Name, true
	case "http.rgate.route":
		return state.route.name, true
	case "http.rgate.backend":
		return state.backend, true
	case "http.rgate.container":
		return state.Container(), true
	}
	if name, ok := strings.CutPrefix(key, "http.rgate.param."); ok {
		return state.route.matcher.Pattern.Param(state.path, name), true
	}
	return nil, false
}

// RouteInfo implements policy.RequestState.
func (state *requestState) RouteInfo() policy.RouteInfo {
	return policy.RouteInfo{Gateway: state.gateway.Name, Route: state.route.name, Backend: state.backend}
}

// ClientHost returns the host that the client sent.
func (state *requestState) ClientHost() string { return state.host }

// Forward implements policy.RequestState. In statistics, the request is counted for the
// original backend.
func (state *requestState) Forward(backend string, w http.ResponseWriter, r *http.Request) (known bool, err error) {
	b := state.gateway.backendNamed(backend)
	if b == nil {
		return false, nil
	}
	original := state.backend
	state.backend = b.Name
	defer func() { state.backend = original }()
	next := caddyhttp.Handler(forwardIdentity(b.standalone))
	if state.route.StripPrefix {
		next = state.route.stripPrefix(next)
	}
	return true, next.ServeHTTP(w, r)
}

// Attach adds a copy of the state to a detached copy of the request (see httpx.Detach).
func (state *requestState) Attach(r *http.Request) {
	attached := newRequestState(r, state.gateway, state.route)
	attached.backend, attached.path, attached.host = state.backend, state.path, state.host
	attached.Hops, attached.looped = state.Hops, state.looped
}

// HasBackend implements policy.BackendDirectory.
func (state *requestState) HasBackend(backend string) bool {
	return state.gateway.backendNamed(backend) != nil
}

// LogDetails implements stats.LogDetails.
func (state *requestState) LogDetails() (container, failure string) {
	return state.Container(), state.failure
}

// Looped implements policy.LoopDetector.
func (state *requestState) Looped() bool { return state.looped }

// Interface guards
var (
	_ httpx.Attacher          = (*requestState)(nil)
	_ policy.BackendDirectory = (*requestState)(nil)
	_ policy.GuardSetter      = (*requestState)(nil)
	_ policy.InstanceResolver = (*requestState)(nil)
	_ policy.LoopDetector     = (*requestState)(nil)
	_ stats.LogDetails        = (*requestState)(nil)
)
