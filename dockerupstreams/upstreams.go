package dockerupstreams

import "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

// Upstreams returns a new upstream for each target, in the same order. Upstreams are
// not reused, because the proxy modifies them. It makes at most two allocations.
func Upstreams(targets []Target) []*reverseproxy.Upstream {
	pointers, upstreams := slab(len(targets))
	for i := range targets {
		u := &upstreams[i]
		u.Dial, u.MaxRequests = targets[i].Dial, targets[i].MaxRequests
		pointers[i] = u
	}
	return pointers
}

// slab allocates n upstreams and a slice of pointers, for small n in one allocation of
// the exact size.
func slab(n int) ([]*reverseproxy.Upstream, []reverseproxy.Upstream) {
	switch n {
	case 0:
		return []*reverseproxy.Upstream{}, nil
	case 1:
		s := new(struct {
			pointers  [1]*reverseproxy.Upstream
			upstreams [1]reverseproxy.Upstream
		})
		return s.pointers[:], s.upstreams[:]
	case 2:
		s := new(struct {
			pointers  [2]*reverseproxy.Upstream
			upstreams [2]reverseproxy.Upstream
		})
		return s.pointers[:], s.upstreams[:]
	case 3:
		s := new(struct {
			pointers  [3]*reverseproxy.Upstream
			upstreams [3]reverseproxy.Upstream
		})
		return s.pointers[:], s.upstreams[:]
	default:
		return make([]*reverseproxy.Upstream, n), make([]reverseproxy.Upstream, n)
	}
}
