package dockerupstreams

import "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

// slab holds the upstreams of most services in one piece of memory.
type slab struct {
	pointers  [fewUpstreams]*reverseproxy.Upstream
	upstreams [fewUpstreams]reverseproxy.Upstream
}

const fewUpstreams = 4

// Upstreams makes an upstream for each target, in their order: always new ones,
// for the proxy writes into what it is given. It allocates twice at most.
func Upstreams(targets []Target) []*reverseproxy.Upstream {
	var (
		pointers  []*reverseproxy.Upstream
		upstreams []reverseproxy.Upstream
	)
	if len(targets) <= fewUpstreams {
		s := new(slab)
		pointers, upstreams = s.pointers[:len(targets)], s.upstreams[:len(targets)]
	} else {
		pointers = make([]*reverseproxy.Upstream, len(targets))
		upstreams = make([]reverseproxy.Upstream, len(targets))
	}
	for i := range targets {
		u := &upstreams[i]
		u.Dial, u.MaxRequests = targets[i].Dial, targets[i].MaxRequests
		pointers[i] = u
	}
	return pointers
}
