package balance

import (
	"cmp"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/dockerupstreams"
)

// placement is a ring together with the upstreams of its members. It is immutable.
type placement struct {
	set     *dockerupstreams.Set // containers; nil for static upstreams
	ring    *Ring
	members []Member
	dials   []string       // address of each member
	byDial  map[string]int // member of each address
}

// placement returns the ring of the current upstreams. It creates a new ring only if the
// upstreams have changed. Concurrent requests use the previous ring until the new one is
// ready.
func (p *RingHash) placement(pool reverseproxy.UpstreamPool) *placement {
	set, fixed := upstreamsOf(p.proxy)
	current := p.placed.Load()
	if current.serves(set, fixed, pool) {
		return current
	}
	if current == nil {
		p.placing.Lock()
	} else if !p.placing.TryLock() {
		return current
	}
	defer p.placing.Unlock()
	if current = p.placed.Load(); current.serves(set, fixed, pool) {
		return current
	}
	if fixed != nil {
		pool = fixed // on a retry, pool may be incomplete
	}
	made := place(set, pool, current, p.VirtualNodes)
	p.placed.Store(made)
	return made
}

// serves reports whether the placement is valid for a pool. The pool may lack members of
// the placement, which are then skipped.
func (at *placement) serves(set *dockerupstreams.Set, fixed, pool reverseproxy.UpstreamPool) bool {
	if at == nil || at.set != set {
		return false
	}
	if set != nil || fixed != nil {
		return true
	}
	for i, upstream := range pool {
		if at.member(i, upstream.Dial) < 0 {
			return false
		}
	}
	return true
}

// place creates the placement of a set of containers or, if set is nil, of a list of
// upstreams. It reuses the previous ring if only addresses have changed.
func place(set *dockerupstreams.Set, upstreams reverseproxy.UpstreamPool, old *placement, virtualNodes int) *placement {
	at := &placement{set: set}
	if set != nil {
		for _, target := range set.Targets {
			at.add(Member{Name: cmp.Or(target.Container, target.Dial), Weight: max(target.Weight, 1)}, target.Dial)
		}
	} else {
		for _, upstream := range upstreams {
			at.add(Member{Name: upstream.Dial, Weight: 1}, upstream.Dial)
		}
	}
	at.byDial = make(map[string]int, len(at.dials))
	for member, dial := range slices.Backward(at.dials) {
		at.byDial[dial] = member
	}
	if old != nil && slices.Equal(old.members, at.members) {
		at.ring = old.ring
	} else {
		at.ring = NewRing(at.members, virtualNodes)
	}
	return at
}

func (at *placement) add(m Member, dial string) {
	at.members = append(at.members, m)
	at.dials = append(at.dials, dial)
}

// member returns the member of the i-th upstream in a pool, or -1 if there is none. Pools
// and members usually have the same order.
func (at *placement) member(i int, dial string) int {
	if i < len(at.dials) && at.dials[i] == dial {
		return i
	}
	if member, ok := at.byDial[dial]; ok {
		return member
	}
	return -1
}

// find returns the index of a member in a pool, or -1 if the pool lacks it.
func (at *placement) find(pool reverseproxy.UpstreamPool, member int) int {
	dial := at.dials[member]
	if member < len(pool) && pool[member].Dial == dial {
		return member
	}
	return slices.IndexFunc(pool, func(u *reverseproxy.Upstream) bool { return u.Dial == dial })
}

func (at *placement) weight(member int) int { return at.members[member].Weight }
