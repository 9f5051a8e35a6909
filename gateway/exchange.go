package gateway

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/gateway/upstream"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

// exchange is what the gateway knows of a request while it is under way. It is
// used by one goroutine at a time, and outlives the handler: access logs ask for
// placeholders after it.
type exchange struct {
	gateway *Gateway
	route   *Route
	backend string
	path    string // as it led to the route
	host    string // that the client asked for

	upstream.Request

	failure string // why the backend did not answer

	own trust.ProxyFields // of the request

	looped bool // whether the request has passed this process before
}

// begin makes the exchange of a request known to what handles it further on.
func begin(r *http.Request, g *Gateway, route *Route) *exchange {
	ex := &exchange{gateway: g, route: route, path: r.URL.Path, host: r.Host, Request: upstream.Request{Limits: route.limits}}
	caddyhttp.SetVar(r.Context(), policy.RequestStateVar, ex)
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(ex.placeholder)
	}
	return ex
}

// exchangeOf returns the exchange of a request that came through a gateway.
func exchangeOf(r *http.Request) *exchange {
	ex, _ := caddyhttp.GetVar(r.Context(), policy.RequestStateVar).(*exchange)
	return ex
}

func (ex *exchange) placeholder(key string) (any, bool) {
	switch key {
	case "http.rgate.gateway":
		return ex.gateway.Name, true
	case "http.rgate.route":
		return ex.route.name, true
	case "http.rgate.backend":
		return ex.backend, true
	case "http.rgate.container":
		return ex.Container(), true
	}
	if name, ok := strings.CutPrefix(key, "http.rgate.param."); ok {
		return ex.route.matcher.Pattern.Param(ex.path, name), true
	}
	return nil, false
}

// RouteInfo implements policy.RequestState.
func (ex *exchange) RouteInfo() policy.RouteInfo {
	return policy.RouteInfo{Gateway: ex.gateway.Name, Route: ex.route.name, Backend: ex.backend}
}

// ClientHost returns the host that the client asked for.
func (ex *exchange) ClientHost() string { return ex.host }

// Forward implements policy.RequestState. Statistics go on to count the request for the
// backend that it was meant for.
func (ex *exchange) Forward(backend string, w http.ResponseWriter, r *http.Request) (known bool, err error) {
	b := ex.gateway.backendNamed(backend)
	if b == nil {
		return false, nil
	}
	before := ex.backend
	ex.backend = b.Name
	defer func() { ex.backend = before }()
	way := caddyhttp.Handler(introducing(b.standalone))
	if ex.route.StripPrefix {
		way = ex.route.stripping(way)
	}
	return true, way.ServeHTTP(w, r)
}

// Attach makes a detached copy of the request one of the same route and backend (see
// httpx.Detach).
func (ex *exchange) Attach(r *http.Request) {
	attached := begin(r, ex.gateway, ex.route)
	attached.backend, attached.path, attached.host = ex.backend, ex.path, ex.host
	attached.Hops, attached.looped = ex.Hops, ex.looped
}

// HasBackend implements policy.BackendDirectory.
func (ex *exchange) HasBackend(backend string) bool { return ex.gateway.backendNamed(backend) != nil }

// LogDetails implements stats.LogDetails.
func (ex *exchange) LogDetails() (container, failure string) {
	return ex.Container(), ex.failure
}

// Looped implements policy.LoopDetector.
func (ex *exchange) Looped() bool { return ex.looped }

// Interface guards
var (
	_ policy.BackendDirectory = (*exchange)(nil)
	_ policy.GuardSetter      = (*exchange)(nil)
	_ policy.InstanceResolver = (*exchange)(nil)
	_ policy.LoopDetector     = (*exchange)(nil)
	_ stats.LogDetails        = (*exchange)(nil)
)
