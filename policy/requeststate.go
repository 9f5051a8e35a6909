package policy

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// RouteInfo names the gateway, route and backend of a request. It is empty outside of a
// gateway.
type RouteInfo struct {
	Gateway string
	Route   string
	Backend string
}

// RequestState is a gateway's per-request state, as policies see it.
type RequestState interface {
	RouteInfo() RouteInfo

	// Forward sends the request to another backend of the gateway, through the handlers of
	// that backend. The error is to be returned by the calling handler. known is false if
	// the backend does not exist.
	Forward(backend string, w http.ResponseWriter, r *http.Request) (known bool, err error)
}

// BackendDirectory is a RequestState that knows the backends of the gateway.
type BackendDirectory interface {
	RequestState

	HasBackend(name string) bool
}

// LoopDetector is a RequestState that detects loops. A request that has passed this process
// before must not wait for itself.
type LoopDetector interface {
	RequestState

	Looped() bool
}

// GuardSetter is a RequestState whose gateway asks a guard before it chooses an upstream.
type GuardSetter interface {
	RequestState

	// SetGuard sets the guard, or none, and returns the previous one.
	SetGuard(UpstreamGuard) (previous UpstreamGuard)
}

// UpstreamGuard decides which upstreams of its backend a request may be sent to, and learns
// the outcome. It is called by one goroutine at a time.
type UpstreamGuard interface {
	// Allows reports whether an upstream may be chosen. It need not be.
	Allows(address string) bool

	// Begin is called with the chosen upstream before the request is sent to it. If it
	// returns false, another upstream is chosen.
	Begin(address string) bool

	// End is called when the upstream has responded with a status, or has failed. It is not
	// called if the request was not sent.
	End(status int, err error)
}

// InstanceResolver is a RequestState that knows the containers of upstreams.
type InstanceResolver interface {
	RequestState

	Instance(address string) Instance
}

// Instance identifies one run of a container: several containers can have the same address
// one after the other. It is empty for an address that does not belong to a container.
type Instance struct {
	ID      string // of the container
	Started int64  // its last known start, in nanoseconds since 1970; 0: unknown
}

// RequestStateVar is the variable of a request that holds its RequestState.
const RequestStateVar = "rgate.exchange"

// RequestStateOf returns the gateway's state of a request, nil outside of a gateway.
func RequestStateOf(r *http.Request) RequestState {
	state, _ := caddyhttp.GetVar(r.Context(), RequestStateVar).(RequestState)
	return state
}

// RouteInfoOf returns the gateway, route and backend of a request.
func RouteInfoOf(r *http.Request) RouteInfo {
	if state := RequestStateOf(r); state != nil {
		return state.RouteInfo()
	}
	return RouteInfo{}
}

// Looped reports whether a gateway of this process has forwarded the request before.
func Looped(r *http.Request) bool {
	state, ok := RequestStateOf(r).(LoopDetector)
	return ok && state.Looped()
}

// Target is what a client requested, before handlers changed the request.
type Target struct {
	Method string
	Host   string
	Path   string // as the client encoded it
	Query  string
}

// clientHoster is a RequestState that knows the host that the client requested.
type clientHoster interface{ ClientHost() string }

// TargetOf returns what the client of a request asked for.
func TargetOf(r *http.Request) Target {
	t := Target{Method: r.Method, Host: r.Host}
	url, uri := r.URL, r.RequestURI
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		t.Method, url, uri = original.Method, original.URL, original.RequestURI
	}
	if state, ok := RequestStateOf(r).(clientHoster); ok {
		t.Host = state.ClientHost()
	}
	t.Query = url.RawQuery
	if path, _, _ := strings.Cut(uri, "?"); strings.HasPrefix(path, "/") {
		t.Path = path
	} else {
		t.Path = url.EscapedPath()
	}
	return t
}
