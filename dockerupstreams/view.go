package dockerupstreams

import (
	"slices"
	"strings"
	"sync/atomic"
)

// view is the containers of one selector on one engine. All that share the
// selector share the view. Everything but set is guarded by the watcher's mu.
type view struct {
	sel   Selector
	set   atomic.Pointer[Set]
	refs  int
	under label // where the watcher's index has it

	verdicts map[string]verdict // by container ID
	changed  map[string]verdict // whose verdicts are newer than set, and what set has
	told     map[string]string  // the reasons that were logged, by container ID

	// Subscriptions that join this set with others, and must do so again whenever
	// it was replaced.
	listeners map[*Subscription]struct{}
}

// label is a label with its value.
type label struct{ name, value string }

// verdict is what the rules say about a container that carries the labels:
// either it is a target, or it was rejected.
type verdict struct {
	target   Target
	rejected Rejection
}

func (v verdict) isTarget() bool { return v.target.ID != "" }

func newView(sel Selector) *view {
	v := &view{
		sel:       sel,
		verdicts:  make(map[string]verdict),
		changed:   make(map[string]verdict),
		told:      make(map[string]string),
		listeners: make(map[*Subscription]struct{}),
	}
	v.set.Store(new(Set))
	return v
}

// consider judges a container that carries the labels (nil: it does not run any
// more) and notes what changed.
func (v *view) consider(id string, c *container, draining bool, at *site) {
	old, known := v.verdicts[id]
	if c == nil {
		if known {
			delete(v.verdicts, id)
			delete(v.told, id)
			v.change(id, old)
		}
		return
	}
	var now verdict
	target, rejection := resolve(&v.sel, c, at)
	switch {
	case rejection != nil:
		now.rejected = *rejection
	case draining:
		now.rejected = Rejection{Container: c.name, ID: c.id, Reason: "the container is being stopped", Temporary: true}
	default:
		now.target = target
	}
	if !known || old != now {
		v.verdicts[id] = now
		v.change(id, old)
	}
}

// change notes that the verdict on a container is no longer what it was when the
// set was made.
func (v *view) change(id string, was verdict) {
	if _, ok := v.changed[id]; !ok {
		v.changed[id] = was
	}
}

// publish replaces the set if anything changed, and returns the rejections that
// nobody was told of yet.
func (v *view) publish(synced bool) (news []Rejection) {
	old := v.set.Load()
	if len(v.changed) == 0 && old.Synced == synced {
		return nil
	}
	set := &Set{Generation: old.Generation + 1, Synced: synced}
	var was, now verdicts
	for id, old := range v.changed {
		was.add(old)
		verdict, ok := v.verdicts[id]
		if !ok {
			continue
		}
		now.add(verdict)
		switch {
		case verdict.isTarget():
			delete(v.told, id)
		case !verdict.rejected.Temporary && v.told[id] != verdict.rejected.Reason:
			v.told[id] = verdict.rejected.Reason
			news = append(news, verdict.rejected)
		}
	}
	set.Targets = merge(old.Targets, was.targets, now.targets, compareTargets)
	set.Rejected = merge(old.Rejected, was.rejected, now.rejected, compareRejections)
	clear(v.changed)
	v.set.Store(set)
	for s := range v.listeners {
		s.merge()
	}
	slices.SortFunc(news, compareRejections)
	return news
}

// verdicts are verdicts of either kind.
type verdicts struct {
	targets  []Target
	rejected []Rejection
}

func (vs *verdicts) add(v verdict) {
	switch {
	case v.isTarget():
		vs.targets = append(vs.targets, v.target)
	case v.rejected.ID != "":
		vs.rejected = append(vs.rejected, v.rejected)
	}
}

// merge is what was there without what is gone and with what is fresh, in order.
// It copies whole stretches: with ten thousand targets, looking at each for every
// event would show.
func merge[T any](old, gone, fresh []T, compare func(a, b T) int) []T {
	if len(gone) == 0 && len(fresh) == 0 {
		return old
	}
	slices.SortFunc(gone, compare)
	slices.SortFunc(fresh, compare)
	all := make([]T, 0, len(old)-len(gone)+len(fresh))
	for len(gone) > 0 || len(fresh) > 0 {
		if len(gone) == 0 || (len(fresh) > 0 && compare(fresh[0], gone[0]) < 0) {
			n, _ := slices.BinarySearchFunc(old, fresh[0], compare)
			all = append(append(all, old[:n]...), fresh[0])
			old, fresh = old[n:], fresh[1:]
			continue
		}
		n, _ := slices.BinarySearchFunc(old, gone[0], compare)
		all = append(all, old[:n]...)
		old, gone = old[n+1:], gone[1:]
	}
	return append(all, old...)
}

// labelsOf writes a selector's labels for a log line.
func labelsOf(sel *Selector) string {
	pairs := make([]string, 0, len(sel.MatchLabels))
	for name, value := range sel.MatchLabels {
		pairs = append(pairs, name+"="+value)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, " ")
}
