package upstream

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/dockerupstreams"
	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/policy"
)

// Request is the state of a request that services forward. The gateway's request state
// embeds it. It is used by one goroutine at a time.
type Request struct {
	// The time limits of the route.
	Limits Limits

	// The field that services send to upstreams: see TakeHops.
	Hops []string

	guard   policy.UpstreamGuard // restricts the upstreams; nil: all are allowed
	attempt attempt              // the last one
	tried   []string             // where the attempts before it went
	spent   bool                 // whether retries have used up their budget

	upload   *httpx.WatchedBody // nil: the request has no body
	writer   faultWriter        // in which the proxy writes
	endPause func()             // restores the limit of how long the client may pause
}

// attempt is one attempt to send a request to an upstream.
type attempt struct {
	containers *dockerupstreams.Subscription
	set        *dockerupstreams.Set // the containers that it chose from
	dial       string               // the address of the upstream
	result     failure.Result       // if it failed
	fault      error                // its error, if the client is to blame
}

// target returns the container of the attempt, or nil.
func (a *attempt) target() *dockerupstreams.Target {
	if a.set == nil || a.dial == "" {
		return nil
	}
	return a.set.ByDial(a.dial)
}

// requestHolder is a request state that embeds Request.
type requestHolder interface{ UpstreamRequest() *Request }

// requestOf returns the state of a request, or nil if it does not come through a gateway.
func requestOf(r *http.Request) *Request {
	state, ok := caddyhttp.GetVar(r.Context(), policy.RequestStateVar).(requestHolder)
	if !ok {
		return nil
	}
	return state.UpstreamRequest()
}

// UpstreamRequest returns the request: it makes a type that embeds Request a requestHolder.
func (q *Request) UpstreamRequest() *Request { return q }

// Container returns the name of the container of the last attempt. It is empty for static
// addresses.
func (q *Request) Container() string {
	if target := q.attempt.target(); target != nil {
		return target.Container
	}
	return ""
}

// Address returns the address of the upstream of the last attempt.
func (q *Request) Address() string { return q.attempt.dial }

// SetGuard implements policy.GuardSetter.
func (q *Request) SetGuard(guard policy.UpstreamGuard) (before policy.UpstreamGuard) {
	before, q.guard = q.guard, guard
	return before
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
