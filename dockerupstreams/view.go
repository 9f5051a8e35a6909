package dockerupstreams

import (
	"slices"
	"strings"
	"sync/atomic"
)

// view holds the containers of one selector on one engine. Subscriptions of equivalent
// selectors share it. All fields except set are guarded by the watcher's mu.
type view struct {
	sel   Selector
	set   atomic.Pointer[Set]
	refs  int
	under label // its key in the watcher's byLabel

	resolutions map[string]resolution // current resolutions, by container ID
	changed     map[string]resolution // the resolutions in set that are outdated
	logged      map[string][]string   // the logged reasons of rejections, by container ID
	settling    chan struct{}         // see watcher

	// The subscriptions to notify of changes of the set.
	listeners map[*Subscription]struct{}
}

// label is a container label with its value.
type label struct{ name, value string }

// resolution is the result of resolve for a container: a target or a rejection.
type resolution struct {
	target   Target
	rejected Rejection
}

func (v resolution) isTarget() bool { return v.target.ID != "" }

func newView(sel Selector) *view {
	v := &view{
		sel:         sel,
		resolutions: make(map[string]resolution),
		changed:     make(map[string]resolution),
		logged:      make(map[string][]string),
		listeners:   make(map[*Subscription]struct{}),
	}
	v.set.Store(new(Set))
	return v
}

// consider resolves a container that has the labels and records the change. owner is the
// container whose network it uses, or nil.
func (v *view) consider(id string, c, owner *container, draining bool, at *site) {
	var now resolution
	target, rejection := resolve(&v.sel, c, owner, at)
	switch {
	case rejection != nil:
		now.rejected = *rejection
	case draining:
		now.rejected = Rejection{Container: c.name, ID: c.id, Reason: "the container is being stopped", Temporary: true}
	default:
		now.target = target
	}
	if old, known := v.resolutions[id]; !known || old != now {
		v.resolutions[id] = now
		v.change(id, old)
	}
}

// remove removes a container.
func (v *view) remove(id string) {
	if old, known := v.resolutions[id]; known {
		delete(v.resolutions, id)
		delete(v.logged, id)
		v.change(id, old)
	}
}

// change records that the resolution of a container in the set is outdated. was is the
// resolution in the set.
func (v *view) change(id string, was resolution) {
	if _, ok := v.changed[id]; !ok {
		v.changed[id] = was
	}
}

// publish replaces the set if a resolution, synced or settling changed. It returns the
// rejections to log: the permanent ones with a new reason.
func (v *view) publish(synced bool) (news []Rejection) {
	old := v.set.Load()
	if len(v.changed) == 0 && old.Synced == synced && old.settling == v.settling {
		return nil
	}
	set := &Set{Generation: old.Generation + 1, Synced: synced, settling: v.settling}
	var was, now resolutions
	for id, old := range v.changed {
		was.add(old)
		resolution, ok := v.resolutions[id]
		if !ok {
			continue
		}
		now.add(resolution)
		switch {
		case resolution.isTarget() || resolution.rejected.Temporary:
		case !slices.Contains(v.logged[id], resolution.rejected.Reason):
			v.logged[id] = append(v.logged[id], resolution.rejected.Reason)
			news = append(news, resolution.rejected)
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

// resolutions holds the targets and the rejections of several resolutions.
type resolutions struct {
	targets  []Target
	rejected []Rejection
}

func (vs *resolutions) add(v resolution) {
	switch {
	case v.isTarget():
		vs.targets = append(vs.targets, v.target)
	case v.rejected.ID != "":
		vs.rejected = append(vs.rejected, v.rejected)
	}
}

// merge returns the sorted slice old without the items of gone and with the items of
// fresh. It copies whole ranges, which is fast with 10,000 targets.
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

// labelsOf formats a selector's labels for the log.
func labelsOf(sel *Selector) string {
	pairs := make([]string, 0, len(sel.MatchLabels))
	for name, value := range sel.MatchLabels {
		pairs = append(pairs, name+"="+value)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, " ")
}
