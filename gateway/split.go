package gateway

import (
	"math/rand/v2"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/cespare/xxhash/v2"

	"github.com/rgate/rgate/stats"
)

// share is a part of a route's requests, and who gets it.
type share struct {
	upTo    uint64 // the sum of the weights of this share and those before it
	backend string
	series  *stats.Series
	handler caddyhttp.Handler
}

// choose returns the share that a request falls into.
//
// The requests' keys lie on a line that the shares divide among them. So if the
// last share grows, it takes keys from the one before, and all others stay.
func (rt *Route) choose(r *http.Request) *share {
	if len(rt.shares) == 1 {
		return &rt.shares[0]
	}
	all := rt.shares[len(rt.shares)-1].upTo
	point := rand.Uint64N(all)
	if rt.StickyKey != "" {
		repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		if key := repl.ReplaceAll(rt.StickyKey, ""); key != "" {
			point = uint64(float64(xxhash.Sum64String(key)>>11) / (1 << 53) * float64(all))
		}
	}
	for i := range rt.shares {
		if point < rt.shares[i].upTo {
			return &rt.shares[i]
		}
	}
	return &rt.shares[len(rt.shares)-1]
}

// backendNames returns the backends that the route leads to.
func (rt *Route) backendNames() []string {
	if rt.Backend != "" {
		return []string{rt.Backend}
	}
	names := make([]string, len(rt.Backends))
	for i, s := range rt.Backends {
		names[i] = s.Name
	}
	return names
}
