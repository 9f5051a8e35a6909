package dockerupstreams

import (
	"cmp"
	"slices"
	"sync"
)

// Set is the containers of a selector at one moment. It never changes, and
// neither may what it holds be changed.
type Set struct {
	// The containers that may receive requests, sorted by name, then by address.
	Targets []Target

	// The containers that carry the labels and may not, sorted by name.
	Rejected []Rejection

	// Grows with every change; the same number means the same content, within one
	// Subscription.
	Generation uint64

	// Whether the list of containers has been seen whole at least once, on every
	// endpoint. Before that, an empty set means nothing.
	Synced bool

	byDial  map[string]*Target
	indexed sync.Once
}

// Sets of up to this many targets are searched one by one, which costs less
// than hashing.
const fewTargets = 8

// ByDial finds the target with this address, nil if there is none. It is instant
// and safe for concurrent use; the first call on a large set builds an index.
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

// mergeSets joins the sets that several endpoints have for one selector.
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
