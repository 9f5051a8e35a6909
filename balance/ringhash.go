// Package balance implements load balancing policies for Caddy's reverse_proxy: consistent
// hashing and least latency.
package balance

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/placeholder"
	"github.com/rgate/rgate/internal/trust"
)

func init() {
	caddy.RegisterModule(new(RingHash))
}

// RingHash is a selection policy that sends requests of the same key to the same
// upstream. When an upstream is added or removed, only its keys move.
//
// Containers are identified by name: a recreated container keeps its keys, whatever its
// address. The label `rgate.weight` sets its share of the keys. Other upstreams are
// identified by address, and have a weight of 1 each.
//
// An upstream that is not available, or that has failed the request before, is skipped
// as if it were not on the ring.
type RingHash struct {
	// The key of a request, with at least one placeholder. A request with an empty key
	// goes to a random upstream. Default: the client's IP address,
	// `{http.vars.client_ip}`.
	Key string `json:"key,omitempty"`

	// The number of virtual nodes of an upstream for each unit of its weight, 1 to 10000.
	// More of them make the shares more even and the ring larger. Default: 150.
	VirtualNodes int `json:"virtual_nodes,omitempty" default:"150"`

	// The maximum number of an upstream's requests in flight, as a multiple of its fair
	// share, rounded up. Above it, its keys go to the next upstream on the ring. Must be
	// above 1, such as 1.25. Default: 0, no bound.
	LoadFactor float64 `json:"load_factor,omitempty"`

	key     placeholder.Key
	proxy   *reverseproxy.Handler
	placed  atomic.Pointer[placement]
	placing sync.Mutex   // held to create a placement
	taken   reservations // with a bound
}

const (
	defaultVirtualNodes = 150
	maxVirtualNodes     = 10_000
)

// CaddyModule returns the Caddy module information.
func (*RingHash) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.selection_policies.ring_hash",
		New: func() caddy.Module { return new(RingHash) },
	}
}

// Provision fills in the defaults.
func (p *RingHash) Provision(ctx caddy.Context) error {
	if p.Key == "" {
		p.Key = placeholder.ClientIP
	}
	if p.VirtualNodes == 0 {
		p.VirtualNodes = defaultVirtualNodes
	}
	trust.MountFilter(ctx)
	if err := trust.CheckFields(ctx, p); err != nil {
		return err
	}
	placeholder.WarnUnknown(ctx, "key", p.Key)
	p.key = placeholder.ParseKey(p.Key)
	p.proxy = proxyOf(ctx)
	return nil
}

// Check returns the first error in the options. It has a method Field, which returns
// the name of the option.
func (p *RingHash) Check() error {
	return cmp.Or(p.checkKey(), p.checkVirtualNodes(), p.checkLoadFactor())
}

// Validate implements caddy.Validator.
func (p *RingHash) Validate() error { return p.Check() }

func (p *RingHash) checkKey() error {
	if err := placeholder.CheckKey("key", p.Key); err != nil {
		return err
	}
	if p.Key != "" && !placeholder.Has(p.Key) {
		return options.Errorf("key", "invalid key %q: without a placeholder, all requests go to one upstream: "+
			"use one such as {http.request.header.X-User}", p.Key)
	}
	return nil
}

func (p *RingHash) checkVirtualNodes() error {
	if p.VirtualNodes < 0 || p.VirtualNodes > maxVirtualNodes {
		return outOfRange(p.VirtualNodes)
	}
	return nil
}

func outOfRange(virtualNodes int) error {
	return options.Errorf("virtual_nodes", "invalid virtual_nodes %d: must be from 1 to %d", virtualNodes, maxVirtualNodes)
}

func (p *RingHash) checkLoadFactor() error {
	if p.LoadFactor != 0 && !(p.LoadFactor > 1 && p.LoadFactor <= math.MaxInt32) { // nor is it NaN
		return options.Errorf("load_factor", "invalid load_factor %v: must be above 1, such as 1.25, or 0 for no bound", p.LoadFactor)
	}
	return nil
}

func notANumber(option, text, want string) error {
	return fmt.Errorf("invalid %s %q: must be %s", option, text, want)
}

// Select returns the upstream of the request's key, or the next one on the ring
// that is available and has room. It returns nil if no upstream is available.
func (p *RingHash) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	if p.LoadFactor == 0 {
		return p.choose(pool, r, w)
	}
	releaseReservation(r) // of the previous attempt
	p.taken.mu.Lock()
	defer p.taken.mu.Unlock()
	chosen := p.choose(pool, r, w)
	if chosen != nil {
		p.taken.take(r, chosen.Dial)
	}
	return chosen
}

// choose selects an upstream. With a bound, taken is locked.
func (p *RingHash) choose(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	key := p.key.Of(r)
	if key == "" {
		return reverseproxy.RandomSelection{}.Select(pool, r, w)
	}
	hash, at := Hash(key), p.placement(pool)
	var all load
	if p.LoadFactor > 0 {
		all = p.load(at, pool)
	}
	if member := at.ring.Find(hash); member >= 0 {
		if i := at.find(pool, member); i >= 0 && pool[i].Available() && p.hasRoom(all, pool[i], at.weight(member)) {
			return pool[i]
		}
	}
	if next := p.next(at, pool, hash, all); next != nil {
		return next
	}
	// The pool has changed since the ring was made, or other requests were counted in between.
	return reverseproxy.RandomSelection{}.Select(pool, r, w)
}

// hasRoom reports whether an upstream may take one more request, given the load of all
// of them.
func (p *RingHash) hasRoom(all load, upstream *reverseproxy.Upstream, weight int) bool {
	return p.LoadFactor == 0 || p.inFlight(upstream) < all.capacity(p.LoadFactor, weight)
}

// inFlight returns an upstream's requests in flight: the larger of the number that this
// policy has sent to it, and the proxy's, which counts a request only some time after its
// selection.
func (p *RingHash) inFlight(upstream *reverseproxy.Upstream) int {
	return max(p.taken.byDial[upstream.Dial], upstream.NumRequests())
}

// load sums up the load of the available upstreams of a pool.
func (p *RingHash) load(at *placement, pool reverseproxy.UpstreamPool) (all load) {
	for i, upstream := range pool {
		if member := at.member(i, upstream.Dial); member >= 0 && upstream.Available() {
			all.requests += p.inFlight(upstream)
			all.weights += at.weight(member)
		}
	}
	return all
}

// next returns the upstream of a key whose own is not available or has no room.
func (p *RingHash) next(at *placement, pool reverseproxy.UpstreamPool, hash uint64, all load) *reverseproxy.Upstream {
	// The index in the pool of each member that can take the request, from 1 on.
	var few [64]int32
	where := few[:]
	if n := len(at.dials); n > len(few) {
		where = make([]int32, n)
	}
	for i, upstream := range pool {
		member := at.member(i, upstream.Dial)
		if member < 0 || where[member] != 0 || !upstream.Available() || !p.hasRoom(all, upstream, at.weight(member)) {
			continue
		}
		where[member] = int32(i) + 1
	}
	member := at.ring.FindAmong(hash, func(member int) bool { return where[member] != 0 })
	if member < 0 {
		return nil
	}
	return pool[where[member]-1]
}

// Interface guards
var (
	_ caddy.Provisioner     = (*RingHash)(nil)
	_ caddy.Validator       = (*RingHash)(nil)
	_ reverseproxy.Selector = (*RingHash)(nil)
)
