package balance

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// The half-life of an estimate when responses get faster.
	halfLife = time.Second

	// The age at which an estimate expires.
	forgetAfter = 10 * time.Second

	// Estimates within this factor are considered equal. Otherwise, among equal
	// upstreams, the one with the latest slow response would get no requests until its
	// estimate expires.
	sameLatency = 1.5

	// The time that an upstream rests after a failure, and the maximum after repeated
	// failures.
	firstRest   = time.Second
	longestRest = forgetAfter
)

// history holds the time to first byte of an upstream's recent responses, and its
// failures. Times are durations since a fixed point in time. The zero value is an empty
// history.
//
// The estimate is an exponentially weighted moving average by time, similar to Finagle's
// peak-sensitive load balancer. It follows slower responses immediately, but at most
// doubles per response, so that one outlier has no lasting effect. With faster responses,
// the weight of the old estimate halves in every half-life.
type history struct {
	waiting atomic.Int32 // requests without a response yet

	mu       sync.Mutex   // held for writes
	estimate atomic.Int64 // time.Duration; 0 if there is none
	updated  atomic.Int64 // time of the last update of estimate
	failures atomic.Int32 // since the last response
	failed   atomic.Int64 // time of the last failure
}

// responded records a response that took the given time.
func (h *history) responded(now, took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.current(now)
	if h.failures.Load() > 0 {
		old = 0 // the process may have restarted
		h.failures.Store(0)
	}
	h.learn(now, old, max(took, 1))
}

// abandoned records a request that the client canceled before the response.
func (h *history) abandoned(now, waited time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if old := h.current(now); old > 0 && waited > old {
		h.learn(now, old, waited)
	}
}

func (h *history) learn(now, old, took time.Duration) {
	switch {
	case old == 0:
		old = took
	case took > old:
		old = min(took, 2*old)
	default:
		age := now - time.Duration(h.updated.Load())
		kept := math.Exp2(-float64(age) / float64(halfLife))
		old = took + time.Duration(float64(old-took)*kept)
	}
	h.estimate.Store(int64(old))
	h.updated.Store(int64(now))
}

// broke records a failed request. Concurrent failures count as one.
func (h *history) broke(now time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.failures.Load(); n == 0 || !h.rests(now) {
		h.failed.Store(int64(now))
		h.failures.Store(min(n+1, 16))
	}
}

// current returns the estimate, or 0 if there is none or it has expired.
func (h *history) current(now time.Duration) time.Duration {
	if now-time.Duration(h.updated.Load()) > forgetAfter {
		return 0
	}
	return time.Duration(h.estimate.Load())
}

// rests reports whether the upstream rests after a failure.
func (h *history) rests(now time.Duration) bool {
	n := h.failures.Load()
	return n > 0 && now-time.Duration(h.failed.Load()) < min(firstRest<<(n-1), longestRest)
}

// view is the part of a history that is used for selection.
type view struct {
	estimate time.Duration // time to first byte; 0 if unknown
	inFlight int
	resting  bool // after a failure; selected only if all others rest too
}

// view returns the view of a history. After its rest, a failed upstream gets one request
// as a probe.
func (h *history) view(now time.Duration, inFlight int) view {
	if h == nil {
		return view{inFlight: inFlight}
	}
	if h.failures.Load() > 0 {
		return view{inFlight: inFlight, resting: h.rests(now) || h.waiting.Load() > 0}
	}
	return view{estimate: h.current(now), inFlight: inFlight}
}

// before reports whether a is preferred to b, that is, likely to respond first. An
// upstream without an estimate gets one request as a probe. While it is in flight, both
// count as equally fast.
func (a view) before(b view) bool {
	if a.estimate == 0 || b.estimate == 0 {
		aIsNew, bIsNew := a.estimate == 0 && a.inFlight == 0, b.estimate == 0 && b.inFlight == 0
		if aIsNew != bIsNew {
			return aIsNew
		}
		return a.inFlight < b.inFlight
	}
	x, y := float64(a.estimate), float64(b.estimate)
	if x < sameLatency*y && y < sameLatency*x {
		x, y = 1, 1
	}
	return x*float64(a.inFlight+1) < y*float64(b.inFlight+1)
}
