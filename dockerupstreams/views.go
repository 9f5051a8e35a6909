package dockerupstreams

import (
	"slices"

	"go.uber.org/zap"
)

// subscribe returns the view for a subscription's selector, and creates it if needed.
func (w *watcher) subscribe(s *Subscription) *view {
	v, news := w.enter(s)
	w.logRejections(map[*view][]Rejection{v: news})
	notify(w.wakes)
	return v
}

func (w *watcher) enter(s *Subscription) (*view, []Rejection) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.subscribers = append(w.subscribers, s)
	v := w.views[s.key]
	if v == nil {
		v = newView(s.sel)
		v.settling = w.settling
		w.views[s.key] = v
		v.under = w.rarest(v.sel.MatchLabels)
		w.byLabel[v.under] = append(w.byLabel[v.under], v)
		w.fill(v)
	}
	v.refs++
	return v, v.publish(w.synced)
}

// rarest returns the label with the fewest views in byLabel. Guarded by mu.
func (w *watcher) rarest(labels map[string]string) (best label) {
	fewest := -1
	for key, value := range labels {
		l := label{key, value}
		if n := len(w.byLabel[l]); fewest < 0 || n < fewest {
			best, fewest = l, n
		}
	}
	return best
}

// fill adds the known containers to a new view. Guarded by mu.
func (w *watcher) fill(v *view) {
	for id, c := range w.table.running {
		if !v.sel.matches(c.labels) {
			continue
		}
		if _, ok := w.selected[id]; ok { // else updateViews adds the container
			w.selected[id] = append(w.selected[id], v)
		}
		w.consider(v, c)
		if c.stale {
			w.table.markDirty(id)
		}
	}
}

// listen makes v notify s of every change.
func (w *watcher) listen(v *view, s *Subscription) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v.listeners[s] = struct{}{}
}

// unsubscribe releases a subscription's view, and deletes the view after its last
// subscription.
func (w *watcher) unsubscribe(s *Subscription, v *view) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.subscribers = slices.DeleteFunc(w.subscribers, func(other *Subscription) bool { return other == s })
	delete(v.listeners, s)
	if v.refs--; v.refs == 0 {
		delete(w.views, s.key)
		isIt := func(other *view) bool { return other == v }
		if left := slices.DeleteFunc(w.byLabel[v.under], isIt); len(left) > 0 {
			w.byLabel[v.under] = left
		} else {
			delete(w.byLabel, v.under)
		}
		for id := range v.resolutions {
			w.selected[id] = slices.DeleteFunc(w.selected[id], isIt)
		}
	}
}

// wanted reports whether a container is selected, is the gateway's own container, or is
// attached to the network of a selected container. Guarded by mu.
func (w *watcher) wanted(c *container) bool {
	_, isOwner := w.owners[c.id]
	return isOwner || c.id == w.ownID || len(w.viewsOf(c)) > 0
}

// consider resolves a selected container for a view. Guarded by mu.
func (w *watcher) consider(v *view, c *container) {
	owner := w.table.running[c.networkOwner]
	if c.networkOwner != "" {
		w.owners[c.networkOwner] = struct{}{}
		if owner != nil && owner.stale {
			w.table.markDirty(owner.id)
		}
	}
	if _, known := w.table.stopSignals[c.id]; !known && !w.addr.stop.drain.IsOff() {
		w.table.uninspected[c.id] = struct{}{}
	}
	v.consider(c.id, c, owner, w.table.drains(c.id), &w.at)
}

// touchDependents marks the containers that use the network of a changed container as
// changed. Guarded by mu.
func (w *watcher) touchDependents() {
	var changed []string
	for id := range w.table.touched {
		if _, ok := w.owners[id]; ok {
			changed = append(changed, id)
			if w.table.running[id] == nil {
				delete(w.owners, id)
			}
		}
	}
	if len(changed) == 0 {
		return
	}
	for id, c := range w.table.running {
		if slices.Contains(changed, c.networkOwner) {
			w.table.touch(id)
		}
	}
}

// viewsOf returns the views that select a container. The result is cached in selected:
// labels of a container are immutable. Guarded by mu.
func (w *watcher) viewsOf(c *container) []*view {
	found, ok := w.selected[c.id]
	if !ok {
		for key, value := range c.labels {
			for _, v := range w.byLabel[label{key, value}] {
				if v.sel.matches(c.labels) {
					found = append(found, v)
				}
			}
		}
		w.selected[c.id] = found
	}
	return found
}

// updateViews updates the sets from the changed containers and returns the rejections
// to log. Guarded by mu.
func (w *watcher) updateViews() map[*view][]Rejection {
	w.refreshSelf()
	w.touchDependents()
	for id := range w.table.touched {
		c := w.table.running[id]
		if c == nil {
			for _, v := range w.selected[id] {
				v.remove(id)
			}
			delete(w.selected, id)
			continue
		}
		for _, v := range w.viewsOf(c) {
			w.consider(v, c)
		}
	}
	clear(w.table.touched)
	news := make(map[*view][]Rejection)
	for _, v := range w.views {
		if rejected := v.publish(w.synced); len(rejected) > 0 {
			news[v] = rejected
		}
	}
	return news
}

// logRejections logs rejected containers with their reasons.
func (w *watcher) logRejections(news map[*view][]Rejection) {
	for v, rejected := range news {
		for _, r := range rejected {
			fields := []zap.Field{zap.String("container", r.Container), zap.String("id", r.ID), zap.String("reason", r.Reason)}
			if r.Label != "" {
				fields = append(fields, zap.String("label", r.Label), zap.String("value", r.Value))
			}
			fields = append(fields, zap.String("selector", labelsOf(&v.sel)), zap.Stringer("endpoint", w.addr))
			if r.Intended {
				w.logger().Info("container excluded", fields...)
			} else {
				w.logger().Warn("container rejected", fields...)
			}
		}
	}
}
