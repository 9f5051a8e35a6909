package stats

import (
	"errors"
	"net/http"
	"sync"

	"github.com/rgate/rgate/policy"
)

// Handle is one configuration's reference to a recorder. It serves the page and feeds
// the sinks until it is closed.
type Handle struct {
	name     string
	path     string // empty if the page is off
	rec      *Recorder
	reporter *reporter
	counted  counted
	guard    *policy.ProtectedEndpoint // nil: all clients may see the page

	mu    sync.Mutex
	held  []*Series   // guarded by mu
	log   *RequestLog // guarded by mu; nil until RequestLog is called
	close sync.Once
	err   error
}

// Series returns the series of a route's requests to a backend, which is empty
// for requests without one. It is created if needed, and held until Close. It must not
// be called on the request path.
func (h *Handle) Series(route, backend string) *Series {
	s := h.rec.Series(route, backend)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = append(h.held, s)
	return s
}

// RequestLog returns the log of the gateway's requests, which exists as long as a
// handle that has called this is open.
func (h *Handle) RequestLog() *RequestLog {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.log == nil {
		h.log = h.rec.holdLog()
	}
	return h.log
}

// RedactParams redacts the values of these query parameters in the log of the gateway's
// requests, also after a reload: the log outlives the configuration.
func (h *Handle) RedactParams(parameters []string) { h.rec.redacted.add(parameters) }

// ServesPath reports whether the statistics page is at this path.
func (h *Handle) ServesPath(path string) bool {
	return path == h.path && path != ""
}

// ServePage serves the statistics page.
func (h *Handle) ServePage(w http.ResponseWriter, r *http.Request) error {
	page := func(w http.ResponseWriter, r *http.Request) error { return servePage(h.rec, w, r) }
	if h.guard == nil {
		return page(w, r)
	}
	return h.guard.ServeProtected(w, r, page)
}

// Report returns the statistics that a query selects.
func (h *Handle) Report(q Query) Report { return h.rec.Report(q) }

// InFlight returns the number of requests in flight to each backend.
func (h *Handle) InFlight() map[string]int64 {
	all := make(map[string]int64)
	h.rec.each(func(s *Series) { all[s.backend] += s.inFlight() })
	return all
}

// Recent returns the snapshots of the last intervals, the oldest first.
func (h *Handle) Recent() []Snapshot { return h.reporter.recent.Snapshots() }

// Close sends a last snapshot to the sinks, which takes a few seconds at most, closes
// them, and releases the recorder. A recorder that has no other holder is discarded.
// A second call, and one on nil, do nothing.
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
