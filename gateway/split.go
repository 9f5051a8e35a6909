package gateway

import (
	"math"
	"math/rand/v2"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/cespare/xxhash/v2"

	"github.com/rgate/rgate/internal/placeholder"
	"github.com/rgate/rgate/stats"
)

// share is a part of a route's requests, and who gets it.
type share struct {
	weight  uint64
	upTo    uint64 // the sum of the weights of this share and those before it
	seed    uint64 // of the hash of keys
	backend string
	series  *stats.Series
	handler caddyhttp.Handler
}

// newShares returns the shares that the route's requests are divided into.
func (rt *Route) newShares() []share {
	rt.sticky = placeholder.ParseKey(rt.StickyKey)
	if rt.Backend != "" {
		return []share{{backend: rt.Backend}}
	}
	shares := make([]share, len(rt.Backends))
	var total uint64
	for i, s := range rt.Backends {
		total += uint64(s.Weight)
		shares[i] = share{weight: uint64(s.Weight), upTo: total, seed: xxhash.Sum64String(s.Name), backend: s.Name}
	}
	return shares
}

// choose returns the share that a request falls into.
func (rt *Route) choose(r *http.Request) *share {
	if len(rt.shares) == 1 {
		return &rt.shares[0]
	}
	if rt.StickyKey != "" {
		if key := rt.sticky.Of(r); key != "" {
			return rt.shareOf(key)
		}
	}
	last := len(rt.shares) - 1
	point := rand.Uint64N(rt.shares[last].upTo)
	for i := range rt.shares[:last] {
		if point < rt.shares[i].upTo {
			return &rt.shares[i]
		}
	}
	return &rt.shares[last]
}

// shareOf returns the share that a key belongs to: the one that scores highest by
// weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted distributed
// hash tables", 2005). A share's score depends on the key, its name and its weight
// alone. So whichever one grows, or is new, takes its keys from all others, and no
// key moves between these.
func (rt *Route) shareOf(key string) *share {
	hash := xxhash.Sum64String(key)
	best, highest := 0, 0.0
	for i := range rt.shares {
		s := &rt.shares[i]
		point := (float64(mix(hash^s.seed)>>12) + 0.5) / (1 << 52) // between 0 and 1, and neither
		if score := float64(s.weight) / -math.Log(point); score > highest {
			best, highest = i, score
		}
	}
	return &rt.shares[best]
}

// mix spreads every bit of x over all of the result (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
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
