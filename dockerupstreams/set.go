package dockerupstreams

import (
	"cmp"
	"slices"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// Set is an immutable snapshot of the containers of a selector.
type Set struct {
	// The containers that can receive requests, sorted by name, then by address.
	Targets []Target

	// The containers that have the labels but receive no requests, sorted by name.
	Rejected []Rejection

	// The version of the set. It increases with every change of a Subscription's set.
	Generation uint64

	// Whether every endpoint has listed its containers at least once. Until then, the
	// set may be incomplete.
	Synced bool

	// Closed when the containers are known again after an outage of the engine, during
	// which they may have been restarted with other addresses. nil: they are known.
	settling <-chan struct{}

	byDial  map[string]*Target
	indexed sync.Once
}

// The maximum number of targets that are searched linearly, which is faster than a map.
const fewTargets = 8

// ByDial returns the target with this address, or nil. It is safe for concurrent use; the
// first call on a large set builds an index.
func (s *Set) ByDial(dial string) *Target {
	if len(s.Targets) <= fewTargets {
		for i := range s.Targets {
			if s.Targets[i].Dial == dial {
				return &s.Targets[i]
			}
		}
		return nil
	}
	s.indexed.Do(func() {
		s.byDial = make(map[string]*Target, len(s.Targets))
		for i := range s.Targets {
			if t := &s.Targets[i]; s.byDial[t.Dial] == nil {
				s.byDial[t.Dial] = t
			}
		}
	})
	return s.byDial[dial]
}

func compareTargets(a, b Target) int {
	return cmp.Or(cmp.Compare(a.Container, b.Container), cmp.Compare(a.Dial, b.Dial), cmp.Compare(a.ID, b.ID))
}

func compareRejections(a, b Rejection) int {
	return cmp.Or(cmp.Compare(a.Container, b.Container), cmp.Compare(a.ID, b.ID))
}

// mergeSets merges the sets of a selector on several endpoints.
func mergeSets(sets []*Set) *Set {
	all := &Set{Synced: true}
	for _, s := range sets {
		all.Targets = append(all.Targets, s.Targets...)
		all.Rejected = append(all.Rejected, s.Rejected...)
		all.Generation += s.Generation
		all.Synced = all.Synced && s.Synced
		if s.settling != nil && len(s.Targets) > 0 {
			all.settling = s.settling
		}
	}
	slices.SortStableFunc(all.Targets, compareTargets)
	slices.SortStableFunc(all.Rejected, compareRejections)
	return all
}

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
