package dockerupstreams

import (
	"slices"
	"strings"
	"sync/atomic"
)

// view is the containers of one selector on one engine. All that share the
// selector share the view. Everything but set is guarded by the watcher's mu.
type view struct {
	sel  Selector
	set  atomic.Pointer[Set]
	refs int

	verdicts map[string]verdict  // by container ID
	changed  map[string]struct{} // whose verdicts are newer than set
	told     map[string]string   // the reasons that were logged, by container ID

	// Subscriptions that join this set with others, and must do so again whenever
	// it was replaced.
	listeners map[*Subscription]struct{}
}

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
		changed:   make(map[string]struct{}),
		told:      make(map[string]string),
		listeners: make(map[*Subscription]struct{}),
	}
	v.set.Store(new(Set))
	return v
}

// consider judges a container (nil: it does not run) and notes what changed.
func (v *view) consider(id string, c *container, draining bool, at *site) {
	old, known := v.verdicts[id]
	if c == nil || !v.sel.matches(c.labels) {
		if known {
			delete(v.verdicts, id)
			delete(v.told, id)
			v.changed[id] = struct{}{}
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
		v.changed[id] = struct{}{}
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
	var fresh []Target
	for id := range v.changed {
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
	set.Targets = merge(old.Targets, fresh, v.changed)
	set.Rejected = v.rejections(old)
	clear(v.changed)
	v.set.Store(set)
	for s := range v.listeners {
		s.merge()
	}
	slices.SortFunc(news, compareRejections)
	return news
}

// merge is the old targets without those that changed, and the fresh ones, in
// order. It costs one pass: with ten thousand targets, sorting them all again
// for each container would show.
func merge(old, fresh []Target, changed map[string]struct{}) []Target {
	slices.SortFunc(fresh, compareTargets)
	all := make([]Target, 0, len(old)+len(fresh))
	for _, t := range old {
		if _, ok := changed[t.ID]; ok {
			continue
		}
		for len(fresh) > 0 && compareTargets(fresh[0], t) < 0 {
			all, fresh = append(all, fresh[0]), fresh[1:]
		}
		all = append(all, t)
	}
	return append(all, fresh...)
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
