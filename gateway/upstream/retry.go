package upstream

import (
	"math/rand/v2"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/dialing"
	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/policy"
)

// retrySelector is a selection policy that restricts another one to upstreams without a
// previous attempt. It avoids upstreams that rest after a failed dial, and selects none if
// the retry budget is exhausted. If the proxy waits between attempts, all upstreams can be
// selected again after each has been tried.
type retrySelector struct {
	reverseproxy.Selector
	rests  *dialing.Rests
	budget *budget
	again  bool
}

// Select implements reverseproxy.Selector.
func (s retrySelector) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	state := requestOf(r)
	if state.probe != nil {
		state.probe.pool = pool
		return unusable
	}
	if failed := state.attempt.dial; failed != "" {
		if state.spent = state.spent || !s.budget.retry(); state.spent {
			return nil
		}
		state.tried = append(state.tried, failed)
		untried := make(reverseproxy.UpstreamPool, 0, len(pool))
		for _, upstream := range pool {
			if !slices.Contains(state.tried, upstream.Dial) {
				untried = append(untried, upstream)
			}
		}
		if len(untried) == 0 && s.again {
			state.tried, untried = state.tried[:0], pool
		}
		pool = untried
	}
	if len(pool) == 0 {
		return nil
	}
	selector := s.Selector
	if state.guard != nil {
		selector = guardedSelector{selector, state.guard}
	}
	var chosen *reverseproxy.Upstream
	if s.rests.Empty() {
		chosen = selector.Select(pool, r, w)
	} else {
		chosen = s.rests.Select(selector, pool, r, w, state.instance)
	}
	if chosen != nil {
		state.attempt.dial = chosen.Dial
	}
	return chosen
}

// guardedSelector is a selection policy that restricts another one to the upstreams
// that a guard allows.
type guardedSelector struct {
	reverseproxy.Selector
	guard policy.UpstreamGuard
}

// Select implements reverseproxy.Selector.
func (s guardedSelector) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	refused := func(upstream *reverseproxy.Upstream) bool { return !s.guard.Allows(upstream.Dial) }
	if slices.ContainsFunc(pool, refused) {
		pool = slices.DeleteFunc(slices.Clone(pool), refused)
	}
	for len(pool) > 0 {
		chosen := s.Selector.Select(pool, r, w)
		if chosen == nil || s.guard.Begin(chosen.Dial) {
			return chosen
		}
		// A concurrent request has made the guard reject this upstream.
		pool = slices.DeleteFunc(slices.Clone(pool), func(u *reverseproxy.Upstream) bool { return u == chosen })
	}
	return nil
}

// weightedSelector is Caddy's weighted_round_robin for pools that lack upstreams. The
// policy assigns weights by position in the pool.
type weightedSelector struct {
	*reverseproxy.WeightedRoundRobinSelection
	all reverseproxy.UpstreamPool // in the order of the weights
}

// Select implements reverseproxy.Selector. For a pool that lacks upstreams, it selects at
// random by weight: the policy's turns are shared by all requests.
func (s weightedSelector) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	if len(pool) == len(s.all) {
		return s.WeightedRoundRobinSelection.Select(s.all, r, w)
	}
	var chosen *reverseproxy.Upstream
	total := 0
	for i, upstream := range s.all {
		weight := s.Weights[min(i, len(s.Weights)-1)]
		if weight <= 0 || !upstream.Available() || !slices.Contains(pool, upstream) {
			continue
		}
		if total += weight; rand.IntN(total) < weight {
			chosen = upstream
		}
	}
	return chosen
}

// attemptTracker is a selection policy that tracks the attempts of a request itself,
// unless another policy does.
type attemptTracker interface{ IgnoreAttempts() }

// retryable matches requests that can be retried even if an upstream may have received
// them: GET, HEAD and OPTIONS without a body, unless the attempt timed out or the client
// caused its failure.
type retryable struct{}

// MatchWithError implements caddyhttp.RequestMatcherWithError.
func (retryable) MatchWithError(r *http.Request) (bool, error) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		result := requestOf(r).attempt.result
		return result.Cause != failure.Client && !result.TimedOut() && !httpx.HasBody(r), nil
	}
	return false, nil
}

// Interface guards
var (
	_ reverseproxy.Selector             = retrySelector{}
	_ reverseproxy.Selector             = guardedSelector{}
	_ reverseproxy.Selector             = weightedSelector{}
	_ caddyhttp.RequestMatcherWithError = retryable{}
)
