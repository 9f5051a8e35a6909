package gateway

import (
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/policy"
)

// watched is a selection policy that chooses by another one among the upstreams
// that a guard lets the request go to.
type watched struct {
	reverseproxy.Selector
	guard policy.UpstreamGuard
}

// Select implements reverseproxy.Selector.
func (g watched) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	barred := func(upstream *reverseproxy.Upstream) bool { return !g.guard.Allows(upstream.Dial) }
	if slices.ContainsFunc(pool, barred) {
		pool = slices.DeleteFunc(slices.Clone(pool), barred)
	}
	for len(pool) > 0 {
		chosen := g.Selector.Select(pool, r, w)
		if chosen == nil || g.guard.Begin(chosen.Dial) {
			return chosen
		}
		// Another request was faster.
		pool = slices.DeleteFunc(slices.Clone(pool), func(u *reverseproxy.Upstream) bool { return u == chosen })
	}
	return nil
}
