package balance

import (
	"cmp"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/dockerupstreams"
)

// placement is a ring, and which upstreams its members are. It never changes.
type placement struct {
	set     *dockerupstreams.Set // what it was made of; nil: of plain upstreams
	ring    *Ring
	members []Member
	dials   []string       // where each member is
	byDial  map[string]int // the member that is there
}

// placement returns the ring of the upstreams that there are now. A new one is
// made only if they have changed; while one request does that, others use the
// ring as it was.
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
		pool = fixed // of which this one may be what is left for a retry
	}
	made := place(set, pool, current, p.VirtualNodes)
	p.placed.Store(made)
	return made
}

// serves reports whether at is what a pool is to be looked up in. A pool may lack
// some of the members, which are then passed over as though they were not there.
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

// place makes the placement of a set of containers, or of a list of upstreams
// without one. If only addresses have changed, it has the ring of the old one.
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

// member returns which member the i-th upstream of a pool is, -1 if none. Pools
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

// find returns where in a pool a member is, -1 if nowhere.
func (at *placement) find(pool reverseproxy.UpstreamPool, member int) int {
	dial := at.dials[member]
	if member < len(pool) && pool[member].Dial == dial {
		return member
	}
	return slices.IndexFunc(pool, func(u *reverseproxy.Upstream) bool { return u.Dial == dial })
}

func (at *placement) weight(member int) int { return at.members[member].Weight }
