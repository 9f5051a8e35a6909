package stats

import (
	"errors"
	"net/http"
	"sync"

	"github.com/rgate/rgate/policy"
)

// Handle is the reference of one configuration to a recorder. It serves the page and
// sends snapshots to the sinks until it is closed.
type Handle struct {
	name     string
	path     string // empty if the page is disabled
	rec      *Recorder
	reporter *reporter
	counted  counted
	guard    *policy.ProtectedEndpoint // nil allows all clients

	mu    sync.Mutex
	held  []*Series   // guarded by mu
	log   *RequestLog // guarded by mu; nil until the first call of RequestLog
	close sync.Once
	err   error
}

// Series returns the series of a route and a backend, and creates it if needed. backend
// is empty for requests without one. The handle holds the series until Close. Series must
// not be called on the request path.
func (h *Handle) Series(route, backend string) *Series {
	s := h.rec.Series(route, backend)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = append(h.held, s)
	return s
}

// RequestLog returns the gateway's request log and holds the log until Close. The log
// exists while it has a holder.
func (h *Handle) RequestLog() *RequestLog {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.log == nil {
		h.log = h.rec.holdLog()
	}
	return h.log
}

// RedactParams adds query parameters whose values are redacted in the request log. The
// redaction survives reloads, like the log.
func (h *Handle) RedactParams(parameters []string) { h.rec.redacted.add(parameters) }

// ServesPath reports whether path is the path of the statistics page.
func (h *Handle) ServesPath(path string) bool {
	return path == h.path && path != ""
}

// ServePage serves the statistics page to the clients that the configuration allows.
func (h *Handle) ServePage(w http.ResponseWriter, r *http.Request) error {
	page := func(w http.ResponseWriter, r *http.Request) error { return servePage(h.rec, w, r) }
	if h.guard == nil {
		return page(w, r)
	}
	return h.guard.ServeProtected(w, r, page)
}

// Report returns the statistics selected by a query.
func (h *Handle) Report(q Query) Report { return h.rec.Report(q) }

// InFlight returns the number of requests in flight to each backend.
func (h *Handle) InFlight() map[string]int64 {
	all := make(map[string]int64)
	h.rec.each(func(s *Series) { all[s.backend] += s.inFlight() })
	return all
}

// Recent returns the snapshots of the last intervals, oldest first.
func (h *Handle) Recent() []Snapshot { return h.reporter.recent.Snapshots() }

// Close sends a last snapshot to the sinks, closes the sinks, and releases the recorder.
// It waits up to six seconds, and six more per sink. A recorder without other holders is
// discarded. Close on a nil or closed handle has no effect.
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
