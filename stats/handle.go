package stats

import (
	"errors"
	"net/http"
	"sync"

	"github.com/rgate/rgate/policy"
)

// Handle is one configuration's hold on a recorder. It serves the page and feeds
// the sinks until it is closed.
type Handle struct {
	name     string
	path     string // empty if the page is off
	rec      *Recorder
	reporter *reporter
	counted  counted
	guard    *policy.Guarded // nil: all clients may see the page

	mu    sync.Mutex
	held  []*Series   // guarded by mu
	log   *RequestLog // guarded by mu; nil: not asked for
	close sync.Once
	err   error
}

// Series returns the series of a route's requests to a backend, which is empty
// for requests that go to none. It is made if need be, and held until Close. It
// must not be called on the request path.
func (h *Handle) Series(route, backend string) *Series {
	s := h.rec.Series(route, backend)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = append(h.held, s)
	return s
}

// RequestLog returns the log of the gateway's requests, which is kept from now on,
// until no handle that has asked for it is open any more.
func (h *Handle) RequestLog() *RequestLog {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.log == nil {
		h.log = h.rec.holdLog()
	}
	return h.log
}

// Conceal keeps the values of these parameters of the query out of the log of the
// gateway's requests, from now on: what is in it already outlives the configuration.
func (h *Handle) Conceal(parameters []string) { h.rec.concealed.add(parameters) }

// ServesPath tells whether the statistics page is at this path.
func (h *Handle) ServesPath(path string) bool {
	return path == h.path && path != ""
}

// ServePage responds to a request for the statistics page.
func (h *Handle) ServePage(w http.ResponseWriter, r *http.Request) error {
	page := func(w http.ResponseWriter, r *http.Request) error { return servePage(h.rec, w, r) }
	if h.guard == nil {
		return page(w, r)
	}
	return h.guard.Admit(w, r, page)
}

// Report returns the figures that a query asks for.
func (h *Handle) Report(q Query) Report { return h.rec.Report(q) }

// InFlight returns how many requests to each backend have begun and not ended.
func (h *Handle) InFlight() map[string]int64 {
	all := make(map[string]int64)
	h.rec.each(func(s *Series) { all[s.backend] += s.inFlight() })
	return all
}

// Recent returns the snapshots of the last intervals, the oldest first.
func (h *Handle) Recent() []Snapshot { return h.reporter.recent.Snapshots() }

// Close sends a last snapshot to the sinks, which takes a few seconds at most,
// closes them, and lets go of the recorder. The figures of a recorder that
// nobody holds are gone. A second call, and one on nil, do nothing.
func (h *Handle) Close() error {
	if h == nil {
		return nil
	}
	h.close.Do(func() {
		h.counted.end()
		h.err = h.reporter.stop()
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, s := range h.held {
			h.rec.Release(s)
		}
		if h.log != nil {
			h.rec.releaseLog()
		}
		h.err = errors.Join(h.err, releaseRecorder(h.name))
	})
	return h.err
}
