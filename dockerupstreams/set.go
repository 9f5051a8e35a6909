package dockerupstreams

import (
	"cmp"
	"slices"
	"sync"
)

// Set is the containers of a selector at one moment. It is immutable, and so is what it
// holds.
type Set struct {
	// The containers that may receive requests, sorted by name, then by address.
	Targets []Target

	// The containers that have the labels and receive no requests, sorted by name.
	Rejected []Rejection

	// The version, which grows with every change: equal versions of one Subscription
	// have equal content.
	Generation uint64

	// Whether all containers have been listed at least once, on every endpoint. Before
	// that, an empty set has no meaning.
	Synced bool

	byDial  map[string]*Target
	indexed sync.Once
}

// Sets of up to this many targets are searched linearly, which costs less than hashing.
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

// mergeSets joins the sets of one selector on several endpoints.
func mergeSets(sets []*Set) *Set {
	all := &Set{Synced: true}
	for _, s := range sets {
		all.Targets = append(all.Targets, s.Targets...)
		all.Rejected = append(all.Rejected, s.Rejected...)
		all.Generation += s.Generation
		all.Synced = all.Synced && s.Synced
	}
	slices.SortStableFunc(all.Targets, compareTargets)
	slices.SortStableFunc(all.Rejected, compareRejections)
	return all
}
