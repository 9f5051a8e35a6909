package policy

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/failure"
)

// RouteInfo names the gateway, route and backend of a request. It is empty outside of a gateway.
type RouteInfo struct {
	Gateway string // its name
	Route   string // the name of the route that took the request
	Backend string // the name of the backend that it goes to
}

// RequestState is the per-request state of a gateway, for its policies.
type RequestState interface {
	RouteInfo() RouteInfo

	// Forward sends the request to another backend of the gateway, through the
	// handlers that stand on it. Its error is as that of the handler that calls it.
	// There may be no backend of that name.
	Forward(backend string, w http.ResponseWriter, r *http.Request) (known bool, err error)
}

// BackendDirectory is a RequestState that reports which backends requests can be sent to.
type BackendDirectory interface {
	RequestState

	HasBackend(backend string) bool
}

// LoopDetector is a RequestState that knows whether the request has passed this process
// before: then it must not wait for itself.
type LoopDetector interface {
	RequestState

	Looped() bool
}

// Looped reports whether a gateway of this process has forwarded the request before.
func Looped(r *http.Request) bool {
	exchange, ok := RequestStateOf(r).(LoopDetector)
	return ok && exchange.Looped()
}

// RequestStateVar is the variable of a request that has its RequestState.
const RequestStateVar = "rgate.exchange"

// RequestStateOf returns the gateway's state of a request, nil outside of a gateway.
func RequestStateOf(r *http.Request) RequestState {
	exchange, _ := caddyhttp.GetVar(r.Context(), RequestStateVar).(RequestState)
	return exchange
}

// RouteInfoOf returns the gateway, route and backend of a request.
func RouteInfoOf(r *http.Request) RouteInfo {
	if exchange := RequestStateOf(r); exchange != nil {
		return exchange.RouteInfo()
	}
	return RouteInfo{}
}

const coveredVar = "rgate.covered"

// MarkFallbackPresent notes that a handler answers the failures of those further in also outside of
// a gateway.
func MarkFallbackPresent(r *http.Request) { caddyhttp.SetVar(r.Context(), coveredVar, true) }

// RefuseWithFallback turns a request away as Refuse does, but in a gateway leaves it to others to
// answer: to a fallback, or to the gateway itself.
func (b *Base) RefuseWithFallback(w http.ResponseWriter, r *http.Request, status int, cause error) error {
	if RequestStateOf(r) == nil && caddyhttp.GetVar(r.Context(), coveredVar) == nil {
		return b.Refuse(w, r, status, cause)
	}
	b.countRefusal(r, status)
	started := b.name != "" // then it is known to stand before the backend
	return caddyhttp.Error(status, failure.Error{Err: cause, Result: failure.Result{Cause: failure.Gateway, Status: status, Unsent: started}})
}

// countRefusal counts a refusal and says in a placeholder whose it was.
func (b *Base) countRefusal(r *http.Request, status int) {
	route := RouteInfoOf(r).Route
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.rgate.refused_by", b.name)
	}
	refusals.Count(refusal{b.name, route, status})
}
