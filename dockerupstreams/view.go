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
	changed  map[string]Target  // whose verdicts are newer than set, and what set has
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
		changed:   make(map[string]Target),
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
		v.changed[id] = was.target
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
	var gone, fresh []Target
	for id, was := range v.changed {
		if was.ID != "" {
			gone = append(gone, was)
		}
		now, ok := v.verdicts[id]
		switch {
		case !ok:
		case now.isTarget():
			fresh = append(fresh, now.target)
			delete(v.told, id)
		case !now.rejected.Temporary && v.told[id] != now.rejected.Reason:
			v.told[id] = now.rejected.Reason
			news = append(news, now.rejected)
		}
	}
	set.Targets = merge(old.Targets, gone, fresh)
	set.Rejected = v.rejections(old)
	clear(v.changed)
	v.set.Store(set)
	for s := range v.listeners {
		s.merge()
	}
	slices.SortFunc(news, compareRejections)
	return news
}

// merge is the old targets without those that are gone and with the fresh ones,
// in order. It copies whole stretches: with ten thousand targets, looking at each
// for every event would show.
func merge(old, gone, fresh []Target) []Target {
	if len(gone) == 0 && len(fresh) == 0 {
		return old
	}
	slices.SortFunc(gone, compareTargets)
	slices.SortFunc(fresh, compareTargets)
	all := make([]Target, 0, len(old)-len(gone)+len(fresh))
	for len(gone) > 0 || len(fresh) > 0 {
		add := len(gone) == 0 || (len(fresh) > 0 && compareTargets(fresh[0], gone[0]) < 0)
		if add {
			n, _ := slices.BinarySearchFunc(old, fresh[0], compareTargets)
			all = append(append(all, old[:n]...), fresh[0])
			old, fresh = old[n:], fresh[1:]
			continue
		}
		n, _ := slices.BinarySearchFunc(old, gone[0], compareTargets)
		all = append(all, old[:n]...)
		old, gone = old[n+1:], gone[1:]
	}
	return append(all, old...)
}

// rejections are those of the old set that did not change, and the new ones.
func (v *view) rejections(old *Set) []Rejection {
	var all []Rejection
	for _, r := range old.Rejected {
		if _, ok := v.changed[r.ID]; !ok {
			all = append(all, r)
		}
	}
	for id := range v.changed {
		if now, ok := v.verdicts[id]; ok && !now.isTarget() {
			all = append(all, now.rejected)
		}
	}
	slices.SortFunc(all, compareRejections)
	return all
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
