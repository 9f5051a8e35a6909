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

// weightedBackend is one of the backends of a route.
type weightedBackend struct {
	weight  uint64
	upTo    uint64 // the sum of the weights up to this backend
	seed    uint64 // seed of the key hash
	backend string
	series  *stats.Series
	handler caddyhttp.Handler
}

// newWeightedBackends returns the backends of the route.
func (rt *Route) newWeightedBackends() []weightedBackend {
	rt.sticky = placeholder.ParseKey(rt.StickyKey)
	if rt.Backend != "" {
		return []weightedBackend{{backend: rt.Backend}}
	}
	all := make([]weightedBackend, len(rt.Backends))
	var total uint64
	for i, s := range rt.Backends {
		total += uint64(s.Weight)
		all[i] = weightedBackend{weight: uint64(s.Weight), upTo: total, seed: xxhash.Sum64String(s.Name), backend: s.Name}
	}
	return all
}

// chooseBackend chooses a backend by the sticky key, or randomly by weight.
func (rt *Route) chooseBackend(r *http.Request) *weightedBackend {
	if len(rt.weighted) == 1 {
		return &rt.weighted[0]
	}
	if rt.StickyKey != "" {
		if key := rt.sticky.Of(r); key != "" {
			return rt.rendezvous(key)
		}
	}
	last := len(rt.weighted) - 1
	point := rand.Uint64N(rt.weighted[last].upTo)
	for i := range rt.weighted[:last] {
		if point < rt.weighted[i].upTo {
			return &rt.weighted[i]
		}
	}
	return &rt.weighted[last]
}

// rendezvous returns the backend with the highest score for a key, by weighted
// rendezvous hashing (Schindelhauer and Schomaker, "Weighted distributed hash tables",
// 2005). A score depends only on the key and the backend's name and weight. If a
// backend is added or its weight grows, keys move only to that backend.
func (rt *Route) rendezvous(key string) *weightedBackend {
	hash := xxhash.Sum64String(key)
	best, highest := 0, 0.0
	for i := range rt.weighted {
		s := &rt.weighted[i]
		point := (float64(mix(hash^s.seed)>>12) + 0.5) / (1 << 52) // above 0 and below 1
		if score := float64(s.weight) / -math.Log(point); score > highest {
			best, highest = i, score
		}
	}
	return &rt.weighted[best]
}

// mix is the finalizer of SplitMix64: each bit of x affects all bits of the result.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// backendNames returns the names of the backends of the route.
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
