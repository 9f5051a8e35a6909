package balance

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// After which time without a new answer half of an estimate is gone, when the
	// next answer is faster.
	halfLife = time.Second

	// An estimate that is older says nothing any more.
	forgetAfter = 10 * time.Second

	// Estimates within this factor are taken to be equal. Else, of equal upstreams
	// the one with the last slow answer would be left out until it is forgotten.
	sameLatency = 1.5

	// How long an upstream rests after it failed, and how long at most when that
	// has happened again and again.
	firstRest   = time.Second
	longestRest = forgetAfter
)

// history is what is remembered of an upstream: how long it takes until the first
// byte of an answer, and whether it failed. Moments are durations since any fixed
// one. The zero value remembers nothing.
//
// The estimate is an exponentially weighted moving average by time, in the manner
// of the peak-sensitive one of Finagle's load balancers: it follows an answer that
// took longer at once, though to twice as much at most, lest a single slow one
// count for minutes; and it comes down by half in every half-life.
type history struct {
	waiting atomic.Int32 // requests that no answer has begun to

	mu       sync.Mutex   // held to write
	estimate atomic.Int64 // time.Duration; 0: none
	heard    atomic.Int64 // when the estimate was last made
	failures atomic.Int32 // since the last answer
	failed   atomic.Int64 // when the last one was
}

// answered takes note of an answer.
func (h *history) answered(now, took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.current(now)
	if h.failures.Load() > 0 {
		old = 0 // it may be another process by now
		h.failures.Store(0)
	}
	h.learn(now, old, max(took, 1))
}

// abandoned takes note of a client that would not wait any longer.
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
		age := now - time.Duration(h.heard.Load())
		kept := math.Exp2(-float64(age) / float64(halfLife))
		old = took + time.Duration(float64(old-took)*kept)
	}
	h.estimate.Store(int64(old))
	h.heard.Store(int64(now))
}

// broke takes note of a request that got no answer, or none that helps. Those
// that fail together count once.
func (h *history) broke(now time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.failures.Load(); n == 0 || !h.rests(now) {
		h.failed.Store(int64(now))
		h.failures.Store(min(n+1, 16))
	}
}

// current returns the estimate, 0 if there is none.
func (h *history) current(now time.Duration) time.Duration {
	if now-time.Duration(h.heard.Load()) > forgetAfter {
		return 0
	}
	return time.Duration(h.estimate.Load())
}

// rests reports whether an upstream that failed is to be left alone.
func (h *history) rests(now time.Duration) bool {
	n := h.failures.Load()
	return n > 0 && now-time.Duration(h.failed.Load()) < min(firstRest<<(n-1), longestRest)
}

// view is what matters of an upstream when one is to be chosen.
type view struct {
	estimate time.Duration // until the first byte of an answer; 0: nobody knows
	inFlight int
	resting  bool // it failed: to be chosen only if all others did, too
}

// view looks at a history. After its rest, an upstream that failed is tried with
// one request.
func (h *history) view(now time.Duration, inFlight int) view {
	if h == nil {
		return view{inFlight: inFlight}
	}
	if h.failures.Load() > 0 {
		return view{inFlight: inFlight, resting: h.rests(now) || h.waiting.Load() > 0}
	}
	return view{estimate: h.current(now), inFlight: inFlight}
}

// before reports whether a is to be preferred to b: the one that is likely to
// answer first. One that has not been heard of is tried with a request, and taken
// to be as fast as the other while that is under way.
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
