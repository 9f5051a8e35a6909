package balance

import (
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// attempts holds the upstreams that a proxy has selected for a request. A policy that
// prefers certain upstreams would otherwise select a failed one again.
type attempts struct {
	request *http.Request // the proxy's copy, which differs between the proxies of a request
	dials   []string
}

// attemptsVar is the request variable that holds the attempts.
const attemptsVar = "rgate.attempts"

// attemptTracking excludes upstreams with a previous attempt from the selection of a
// policy.
type attemptTracking struct {
	retrying *reverseproxy.Handler // nil: unknown, or another policy excludes them
}

// IgnoreAttempts disables the tracking. A gateway calls it, because it tracks attempts
// for all policies.
func (t *attemptTracking) IgnoreAttempts() { t.retrying = nil }

// selectUntried selects an upstream without a previous attempt. If none is available, all
// upstreams can be selected again. It has no effect in a proxy without retries.
func (t *attemptTracking) selectUntried(inner selectFunc, pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	if t.retrying == nil || t.retrying.LoadBalancing == nil || t.retrying.LoadBalancing.Retries == 0 && t.retrying.LoadBalancing.TryDuration == 0 {
		return inner(pool, r, w)
	}
	previous, _ := caddyhttp.GetVar(r.Context(), attemptsVar).(*attempts)
	if previous == nil || previous.request != r {
		previous = &attempts{request: r}
		caddyhttp.SetVar(r.Context(), attemptsVar, previous)
	}
	var chosen *reverseproxy.Upstream
	if len(previous.dials) > 0 {
		tried := func(u *reverseproxy.Upstream) bool { return slices.Contains(previous.dials, u.Dial) }
		chosen = inner(slices.DeleteFunc(slices.Clone(pool), tried), r, w)
	}
	if chosen == nil {
		previous.dials = previous.dials[:0]
		chosen = inner(pool, r, w)
	}
	if chosen != nil {
		previous.dials = append(previous.dials, chosen.Dial)
	}
	return chosen
}

// selectFunc is the method Select of a selection policy.
type selectFunc = func(reverseproxy.UpstreamPool, *http.Request, http.ResponseWriter) *reverseproxy.Upstream
