package upstream

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/dockerupstreams"
	"github.com/rgate/rgate/internal/dialing"
	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/policy"
)

// Request is the state of a request that a service forwards. The gateway's request
// state embeds it. One goroutine uses it at a time.
type Request struct {
	// The time limits of the route. Zero: the service's.
	Limits Limits

	// The value of hopsField for upstreams: see TakeHops.
	Hops []string

	guard   policy.UpstreamGuard // restricts the upstreams; nil: all are allowed
	attempt attempt              // the last attempt
	tried   []string             // addresses of the previous attempts
	spent   bool                 // the retry budget is exhausted
	host    string               // the Host that the service received
	probe   *probe               // not nil: read the state of the upstreams, without forwarding

	settled  bool               // has waited for the containers of a restarted engine
	upgraded bool               // the connection is counted in streams
	upload   *httpx.WatchedBody // nil: the request has no body
	writer   faultWriter        // the proxy's response writer
	endPause func()             // restores the read timeout of the request body
}

// attempt is one attempt to send a request to an upstream.
type attempt struct {
	containers *dockerupstreams.Subscription
	set        *dockerupstreams.Set // the containers at the time of the selection
	dial       string               // address of the upstream
	result     failure.Result       // zero unless the attempt failed
	// The error, if the client caused it. Nil if it canceled a request without a body.
	fault error
}

// target returns the container of the attempt, or nil for a static address.
func (a *attempt) target() *dockerupstreams.Target {
	if a.set == nil || a.dial == "" {
		return nil
	}
	return a.set.ByDial(a.dial)
}

// requestHolder is a request state that embeds Request.
type requestHolder interface{ upstreamRequest() *Request }

// requestOf returns the state of a request, or nil outside of a gateway.
func requestOf(r *http.Request) *Request {
	state, ok := caddyhttp.GetVar(r.Context(), policy.RequestStateVar).(requestHolder)
	if !ok {
		return nil
	}
	return state.upstreamRequest()
}

// upstreamRequest returns the request. It implements requestHolder for types that embed
// Request.
func (q *Request) upstreamRequest() *Request { return q }

// Container returns the container name of the last attempt, empty for static addresses.
func (q *Request) Container() string {
	if target := q.attempt.target(); target != nil {
		return target.Container
	}
	return ""
}

// Address returns the upstream address of the last attempt.
func (q *Request) Address() string { return q.attempt.dial }

// SetGuard implements policy.GuardSetter.
func (q *Request) SetGuard(guard policy.UpstreamGuard) (before policy.UpstreamGuard) {
	before, q.guard = q.guard, guard
	return before
}

// instance returns the container behind an address.
func (q *Request) instance(address string) dialing.Instance {
	return dialing.Instance(q.Instance(address))
}

// Instance implements policy.InstanceResolver.
func (q *Request) Instance(address string) policy.Instance {
	if q.attempt.set == nil {
		return policy.Instance{}
	}
	target := q.attempt.set.ByDial(address)
	if target == nil {
		return policy.Instance{}
	}
	return policy.Instance{ID: target.ID, Started: q.attempt.containers.Started(target.ID)}
}
