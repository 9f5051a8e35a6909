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

	"github.com/rgate/rgate/internal/dialing"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/placeholder"
	"github.com/rgate/rgate/internal/trust"
)

func init() {
	caddy.RegisterModule(new(RingHash))
}

// RingHash is a selection policy that sends requests with the same key to the same
// upstream, by consistent hashing. When an upstream is added or removed, only its keys
// move.
//
// Containers are identified by name, so a recreated container keeps its keys even if its
// address changes. The label `rgate.weight` sets its share of the keys. Other upstreams
// are identified by address and have a weight of 1.
//
// An upstream that is unavailable, or has already failed the request, is skipped as if it
// were not on the ring.
type RingHash struct {
	// The key of a request, with at least one placeholder. Requests with an empty key go
	// to a random upstream. Default: `{http.vars.client_ip}`, the client IP address.
	Key string `json:"key,omitempty"`

	// The number of virtual nodes for each unit of an upstream's weight, 1 to 10000. More
	// virtual nodes distribute keys more evenly but use more memory. Default: 150.
	VirtualNodes int `json:"virtual_nodes,omitempty" default:"150"`

	// The maximum number of requests in flight per upstream, as a multiple of its fair
	// share, rounded up. Above it, requests go to the next upstream on the ring. It must
	// be above 1, such as 1.25. Default: 0, no limit.
	LoadFactor float64 `json:"load_factor,omitempty"`

	key     placeholder.Key
	proxy   *reverseproxy.Handler
	placed  atomic.Pointer[placement]
	placing sync.Mutex   // held while a placement is created
	taken   reservations // used only with load_factor
	attemptTracking
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

// Provision sets defaults and finds the proxy.
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
	p.proxy = dialing.ProxyOf(ctx)
	p.retrying = p.proxy
	return nil
}

// Check returns the first invalid option as an *options.Error.
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
		return options.Errorf("key", "invalid key %q: must contain a placeholder, because otherwise all requests go to one upstream: "+
			"use a key such as {http.request.header.X-User}", p.Key)
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
	if p.LoadFactor != 0 && !(p.LoadFactor > 1 && p.LoadFactor <= math.MaxInt32) { // also rejects NaN
		return options.Errorf("load_factor", "invalid load_factor %v: must be above 1, such as 1.25, or 0 for no bound", p.LoadFactor)
	}
	return nil
}

func notANumber(option, text, want string) error {
	return fmt.Errorf("invalid %s %q: must be %s", option, text, want)
}

// Select returns the upstream for the key of a request. If it is unavailable or has no
// room, Select returns the next upstream on the ring that has room. It returns nil if no
// upstream is available. A retry goes to the next upstream that the request has not been
// sent to.
func (p *RingHash) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	return p.selectUntried(p.reserve, pool, r, w)
}

// reserve selects an upstream and, if a load factor is set, counts the request for it.
func (p *RingHash) reserve(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	if p.LoadFactor == 0 {
		return p.choose(pool, r, w)
	}
	releaseReservation(r) // from the previous attempt
	p.taken.mu.Lock()
	defer p.taken.mu.Unlock()
	chosen := p.choose(pool, r, w)
	if chosen != nil {
		p.taken.take(r, chosen.Dial)
	}
	return chosen
}

// choose selects an upstream. If a load factor is set, the caller holds taken.mu.
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
	// The pool has changed since the ring was created, or concurrent requests were
	// counted.
	return reverseproxy.RandomSelection{}.Select(pool, r, w)
}

// hasRoom reports whether an upstream can accept another request, given the total load.
func (p *RingHash) hasRoom(all load, upstream *reverseproxy.Upstream, weight int) bool {
	return p.LoadFactor == 0 || p.inFlight(upstream) < all.capacity(p.LoadFactor, weight)
}

// inFlight returns the number of an upstream's requests in flight. It is the larger of
// this policy's count and the proxy's count, which increases only some time after the
// selection.
func (p *RingHash) inFlight(upstream *reverseproxy.Upstream) int {
	return max(p.taken.byDial[upstream.Dial], upstream.NumRequests())
}

// load returns the total load of the available upstreams in a pool.
func (p *RingHash) load(at *placement, pool reverseproxy.UpstreamPool) (all load) {
	for i, upstream := range pool {
		if member := at.member(i, upstream.Dial); member >= 0 && upstream.Available() {
			all.requests += p.inFlight(upstream)
			all.weights += at.weight(member)
		}
	}
	return all
}

// next returns the upstream for a key whose own upstream is unavailable or has no room.
func (p *RingHash) next(at *placement, pool reverseproxy.UpstreamPool, hash uint64, all load) *reverseproxy.Upstream {
	// For each member with room, its index in the pool plus 1.
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
