package dockerupstreams

import (
	"cmp"
	"slices"
	"sync"
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
	}
	slices.SortStableFunc(all.Targets, compareTargets)
	slices.SortStableFunc(all.Rejected, compareRejections)
	return all
}
