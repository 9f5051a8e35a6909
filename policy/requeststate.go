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

// RequestState is the gateway's per-request state for policies.
type RequestState interface {
	RouteInfo() RouteInfo

	// Forward sends the request to another backend of the gateway, through that
	// backend's handlers. The calling handler must return the error. known is false if
	// the backend does not exist.
	Forward(backend string, w http.ResponseWriter, r *http.Request) (known bool, err error)
}

// BackendDirectory is a RequestState that can look up the backends of the gateway.
type BackendDirectory interface {
	RequestState

	HasBackend(name string) bool
}

// LoopDetector is a RequestState that detects loops. A request that has passed this
// process before must not wait for itself.
type LoopDetector interface {
	RequestState

	Looped() bool
}

// GuardSetter is a RequestState whose gateway consults a guard before it selects an
// upstream.
type GuardSetter interface {
	RequestState

	// SetGuard sets the guard, or removes it if guard is nil. It returns the previous
	// guard.
	SetGuard(UpstreamGuard) (previous UpstreamGuard)
}

// UpstreamGuard decides which upstreams of its backend may receive a request, and is
// notified of the outcome. One goroutine calls it at a time.
type UpstreamGuard interface {
	// Allows reports whether an upstream may be selected. An allowed upstream is not
	// always selected.
	Allows(address string) bool

	// Begin is called with the selected upstream before the request is sent to it. If
	// it returns false, another upstream is selected.
	Begin(address string) bool

	// End is called after the upstream has responded with a status or has failed. It is
	// not called if the request was not sent.
	End(status int, err error)
}

// InstanceResolver is a RequestState that maps upstream addresses to containers.
type InstanceResolver interface {
	RequestState

	Instance(address string) Instance
}

// Instance identifies one run of a container. Several containers can use the same
// address one after another. It is empty for an address that does not belong to a
// container.
type Instance struct {
	ID      string // container ID
	Started int64  // last known start, in nanoseconds since 1970; 0: unknown
}

// RequestStateVar is the name of the request variable that holds the RequestState.
const RequestStateVar = "rgate.request_state"

// RequestStateOf returns the gateway's state of a request, or nil outside of a gateway.
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

// Target is the target that a client requested, before handlers changed the request.
type Target struct {
	Method string
	Host   string
	Path   string // in the client's encoding
	Query  string
}

// clientHoster is a RequestState that returns the host that the client requested.
type clientHoster interface{ ClientHost() string }

// TargetOf returns the target that the client requested.
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
