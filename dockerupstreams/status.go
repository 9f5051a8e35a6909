package dockerupstreams

import (
	"cmp"
	"slices"
	"time"
)

// EndpointStatus is the state of an engine.
type EndpointStatus struct {
	// The address of the engine.
	Endpoint string `json:"endpoint"`
	// Whether the event stream is connected.
	Connected bool `json:"connected"`
	// The negotiated API version. Empty before the first connection.
	APIVersion string `json:"api_version,omitempty"`
	// The last time the containers were in sync. nil: never.
	LastSync *time.Time `json:"last_sync,omitempty"`
	// The last connection error. Empty if connected.
	Error string `json:"error,omitempty"`
	// The number of running containers, selected or not.
	Containers int `json:"containers"`
	// The selectors, sorted by their labels.
	Selectors []SelectorStatus `json:"selectors"`

	watcher *watcher
}

// SelectorStatus is the state of a selector on an engine.
type SelectorStatus struct {
	Selector
	// The containers that receive requests.
	Targets []TargetStatus `json:"targets"`
	// The containers that have the labels but receive no requests, with the reasons.
	Rejected []Rejection `json:"rejected"`
	// The containers that are almost selected. Only in the admin endpoint.
	NearMisses []NearMiss `json:"near_misses,omitempty"`
}

// TargetStatus is a container that receives requests.
type TargetStatus struct {
	Container   string `json:"container"`
	ID          string `json:"id"`
	Address     string `json:"address"`
	Scheme      string `json:"scheme"`
	Weight      int    `json:"weight"`
	MaxRequests int    `json:"max_requests,omitempty"`
}

// Engines returns the state of all engines in use without their selectors, sorted by
// address.
func Engines() []EndpointStatus { return statuses((*watcher).state) }

// Status returns the state of all engines in use, sorted by address.
func Status() []EndpointStatus { return statuses((*watcher).status) }

func statuses(of func(*watcher) EndpointStatus) []EndpointStatus {
	all := []EndpointStatus{}
	for _, w := range followed() {
		all = append(all, of(w))
	}
	slices.SortFunc(all, func(a, b EndpointStatus) int { return cmp.Compare(a.Endpoint, b.Endpoint) })
	return all
}

// Report is Status with the near misses of each selector, for which it queries the
// engines.
func Report() []EndpointStatus {
	all := Status()
	for _, e := range all {
		for i := range e.Selectors {
			s := &e.Selectors[i]
			s.NearMisses = e.watcher.nearMisses(&s.Selector)
		}
	}
	return all
}

// followed returns the watchers of all engines in use, in no particular order.
func followed() (all []*watcher) {
	watchers.Range(func(_, value any) bool {
		if w, ok := value.(*watcher); ok {
			all = append(all, w)
		}
		return true
	})
	return all
}

// state returns the state of the engine without its selectors.
func (w *watcher) state() EndpointStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := EndpointStatus{
		Endpoint:   w.addr.String(),
		Connected:  w.connected,
		APIVersion: w.apiVersion,
		Containers: len(w.table.running),
		Selectors:  []SelectorStatus{},
		watcher:    w,
	}
	if !w.lastSync.IsZero() {
		at := w.lastSync
		s.LastSync = &at
	}
	if w.lastError != nil {
		s.Error = w.lastError.Error()
	}
	return s
}

func (w *watcher) status() EndpointStatus {
	s := w.state()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range w.views {
		s.Selectors = append(s.Selectors, v.status())
	}
	slices.SortFunc(s.Selectors, func(a, b SelectorStatus) int {
		return cmp.Or(cmp.Compare(labelsOf(&a.Selector), labelsOf(&b.Selector)), cmp.Compare(a.key(), b.key()))
	})
	return s
}

func (v *view) status() SelectorStatus {
	set := v.set.Load()
	s := SelectorStatus{
		Selector: v.sel,
		Targets:  make([]TargetStatus, 0, len(set.Targets)),
		Rejected: append([]Rejection{}, set.Rejected...),
	}
	s.Scheme = cmp.Or(s.Scheme, s.onlyScheme)
	for _, t := range set.Targets {
		s.Targets = append(s.Targets, TargetStatus{
			Container: t.Container, ID: t.ID, Address: t.Dial,
			Scheme: t.Scheme, Weight: t.Weight, MaxRequests: t.MaxRequests,
		})
	}
	return s
}
