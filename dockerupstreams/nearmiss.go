package dockerupstreams

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// NearMiss is a container that has at least one label of a selector, but either not all
// of them or does not run.
type NearMiss struct {
	// The container's name, without the engine's leading slash.
	Container string `json:"container"`
	// The container's ID.
	ID string `json:"id"`
	// The reason why it is not selected, and the remedy.
	Reason string `json:"reason"`
}

// mostNearMisses is the maximum number of reported near misses of a selector on an
// engine.
const mostNearMisses = 100

// NearMisses returns the containers that the selector almost selects, sorted by name. To
// find containers that do not run, it queries the engines, at most every five seconds
// and for at most two seconds. It is for reports only.
func (s *Subscription) NearMisses() []NearMiss {
	var all []NearMiss
	for _, p := range s.parts {
		all = append(all, p.watcher.nearMisses(&s.sel)...)
	}
	sortNearMisses(all)
	return all
}

// stopped caches the containers of an engine that do not run.
type stopped struct {
	mu  sync.Mutex // guards all below; held during the request to the engine
	at  time.Time
	all []*container
}

const (
	stoppedFor     = 5 * time.Second
	stoppedTimeout = 2 * time.Second
)

// stoppedContainers returns the containers that do not run. During an outage, and if the
// engine does not respond in time, it returns none.
func (w *watcher) stoppedContainers() []*container {
	w.mu.Lock()
	connected := w.connected
	w.mu.Unlock()
	if !connected {
		return nil
	}
	w.stopped.mu.Lock()
	defer w.stopped.mu.Unlock()
	if time.Since(w.stopped.at) < stoppedFor {
		return w.stopped.all
	}
	w.stopped.all = nil
	eng, err := w.open()
	if err != nil {
		return nil
	}
	defer eng.close()
	ctx, cancel := context.WithTimeout(context.Background(), stoppedTimeout)
	defer cancel()
	if eng.ping(ctx) == nil {
		w.stopped.all, _ = eng.listStopped(ctx)
	}
	w.stopped.at = time.Now()
	return w.stopped.all
}

// nearMisses returns the containers of the engine that sel almost selects.
func (w *watcher) nearMisses(sel *Selector) []NearMiss {
	all := []NearMiss{}
	for _, c := range w.stoppedContainers() {
		if sel.matches(c.labels) {
			all = append(all, NearMiss{c.name, c.id, "the container does not run (" + cmp.Or(c.status, c.state) + "): start it"})
		}
	}
	w.mu.Lock()
	for _, c := range w.table.running {
		if reason := sel.nearMiss(c.labels); reason != "" {
			all = append(all, NearMiss{c.name, c.id, reason})
		}
	}
	w.mu.Unlock()
	sortNearMisses(all)
	return all[:min(len(all), mostNearMisses)]
}

func sortNearMisses(all []NearMiss) {
	slices.SortFunc(all, func(a, b NearMiss) int { return cmp.Or(cmp.Compare(a.Container, b.Container), cmp.Compare(a.ID, b.ID)) })
}

// nearMiss returns the difference between the labels of a container and of a selector if
// the container has some but not all labels, else "".
func (s *Selector) nearMiss(labels map[string]string) string {
	matching := 0
	for name, want := range s.MatchLabels {
		if got, ok := labels[name]; ok && got == want {
			matching++
		}
	}
	if matching == 0 || matching == len(s.MatchLabels) {
		return ""
	}
	var has, lacks, wants []string
	for _, name := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		want := s.MatchLabels[name]
		switch got, ok := labels[name]; {
		case !ok:
			lacks, wants = append(lacks, "no label "+name), append(wants, name+"="+want)
		case got != want:
			lacks, wants = append(lacks, name+"="+clip(got)), append(wants, name+"="+want)
		default:
			has = append(has, name+"="+want)
		}
	}
	return "the container has " + strings.Join(has, ", ") + ", but " + strings.Join(lacks, ", ") +
		": set " + strings.Join(wants, ", ") + " to select it"
}
