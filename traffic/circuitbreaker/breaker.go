package circuitbreaker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/policy"
)

// breaker is a circuit breaker (Nygard, Release It!, 2007). If closed, it admits requests
// and records their outcomes. If open, it rejects all requests. If half-open, it admits a
// limited number of requests as probes.
//
// Package gobreaker does not expose the time until the next probe, reports transitions
// while it holds its lock, and locks twice for each request. Without ratio, this
// implementation takes no lock while requests succeed.
type breaker struct {
	breakerOptions
	now func() time.Duration // monotonic clock

	// The state in the two lowest bits, and the number of the phase in the others.
	// Written with mu held.
	phase atomic.Uint64

	// The number of consecutive failures, at most failures. 0 if ratio is used. Written
	// with mu held.
	run atomic.Int64

	entered [3]atomic.Uint64 // number of transitions into each state

	instance  policy.Instance // the container, if each container has a breaker
	retired   bool            // removed from the circuit. Guarded by the circuit's mu.
	notClosed int32           // 1 unless the state is closed, otherwise 0. Guarded by the circuit's mu.

	mu        sync.Mutex
	failed    []time.Duration // ring of the times of the last failures. Guarded by mu.
	next      int             // index of the next failure. Guarded by mu.
	window    window          // Guarded by mu.
	until     time.Duration   // time at which an open breaker becomes half-open. Guarded by mu.
	probing   int             // number of probes in flight. Guarded by mu.
	succeeded int             // number of successful probes. Guarded by mu.
	lastProbe time.Duration   // start time of the last probe. Guarded by mu.
}

// breakerOptions holds the options of a breaker.
type breakerOptions struct {
	failures int           // number of consecutive failures that open the breaker; 0 if ratio is used
	expire   time.Duration // maximum age of the first consecutive failure
	ratio    float64       // ratio of failures that opens the breaker
	minimum  int           // minimum number of requests for ratio
	span     time.Duration // time window of ratio
	recovery time.Duration // time for which the breaker stays open
	probes   int           // number of successful probes that close the breaker
}

// circuitState is the state of a breaker.
type circuitState uint8

const (
	circuitClosed circuitState = iota
	circuitHalfOpen
	circuitOpen
)

func (s circuitState) String() string {
	return [...]string{status.CircuitClosed, status.CircuitHalfOpen, status.CircuitOpen}[s]
}

// outcome is the outcome of a request, as an indicator of the backend's health.
type outcome uint8

const (
	unknown outcome = iota // for example, the client disconnected
	succeeded
	failed
)

// change is a transition of a breaker. Without a transition, both states are equal.
type change struct{ from, to circuitState }

func (c change) happened() bool { return c.from != c.to }

// admission is the result of begin. For an admitted request, end must be called with the
// ticket.
type admission struct {
	admitted bool
	ticket   uint64
	wait     time.Duration // time until the next probe if the request is rejected; 0 if unknown
	change
}

func newBreaker(options breakerOptions, now func() time.Duration) *breaker {
	b := &breaker{breakerOptions: options, now: now}
	if options.failures > 0 {
		b.failed = make([]time.Duration, options.failures)
	}
	return b
}

func stateIn(phase uint64) circuitState { return circuitState(phase & 3) }

// begin decides whether a request is admitted.
func (b *breaker) begin() admission {
	if phase := b.phase.Load(); stateIn(phase) == circuitClosed {
		return admission{admitted: true, ticket: phase}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now, from := b.now(), stateIn(b.phase.Load())
	if rejected, wait := b.rejects(now); rejected {
		return admission{wait: wait}
	}
	if from == circuitClosed {
		return admission{admitted: true, ticket: b.phase.Load()}
	}
	if from == circuitOpen || b.probing+b.succeeded >= b.probes {
		// The recovery time has passed: start a new phase, which ignores earlier probes.
		b.enter(circuitHalfOpen)
	}
	b.probing++
	b.lastProbe = now
	return admission{admitted: true, ticket: b.phase.Load(), change: change{from, circuitHalfOpen}}
}

// rejects reports whether requests are currently rejected, and for how long if known. The
// caller must hold mu.
func (b *breaker) rejects(now time.Duration) (rejected bool, wait time.Duration) {
	switch stateIn(b.phase.Load()) {
	case circuitOpen:
		return now < b.until, b.until - now
	case circuitHalfOpen:
		return b.probing+b.succeeded >= b.probes && now-b.lastProbe < b.recovery, 0
	}
	return false, 0
}

// end records the outcome of a request. It ignores requests that began in another phase.
func (b *breaker) end(ticket uint64, how outcome) change {
	if stateIn(ticket) == circuitClosed && (how == unknown || how == succeeded && b.failures > 0 && b.run.Load() == 0) {
		return change{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.phase.Load() != ticket {
		return change{}
	}
	from := stateIn(ticket)
	if from == circuitHalfOpen {
		b.endProbe(how)
	} else if b.count(how) {
		b.enter(circuitOpen)
	}
	return change{from, stateIn(b.phase.Load())}
}

// endProbe records the outcome of a probe. The caller must hold mu.
func (b *breaker) endProbe(how outcome) {
	b.probing--
	switch how {
	case failed:
		b.enter(circuitOpen)
	case succeeded:
		if b.succeeded++; b.succeeded >= b.probes {
			b.enter(circuitClosed)
		}
	}
}

// count records the outcome of a request at a closed breaker and reports whether it opens
// the breaker. The caller must hold mu.
func (b *breaker) count(how outcome) (opens bool) {
	if b.failures == 0 {
		b.window.add(b.now(), b.span, how == failed)
		if how != failed {
			return false
		}
		requests, failures := b.window.sum()
		return requests >= b.minimum && float64(failures) >= b.ratio*float64(requests)
	}
	if how == succeeded {
		b.run.Store(0)
		return false
	}
	now := b.now()
	b.failed[b.next] = now
	b.next = (b.next + 1) % b.failures // index of the oldest failure
	run := min(b.run.Load()+1, int64(b.failures))
	b.run.Store(run)
	return run == int64(b.failures) && now-b.failed[b.next] <= b.expire
}

// enter changes the state and resets its counts. The caller must hold mu.
func (b *breaker) enter(s circuitState) {
	phase := b.phase.Load()
	if stateIn(phase) != s {
		b.entered[s].Add(1)
	}
	b.phase.Store((phase>>2+1)<<2 | uint64(s))
	b.run.Store(0)
	b.next, b.window = 0, window{}
	b.probing, b.succeeded = 0, 0
	if s == circuitOpen {
		b.until = b.now() + b.recovery
	}
}

// current returns the state and, for an open breaker, the remaining recovery time. An open
// breaker whose recovery time has passed is reported as half-open, because it admits the
// next request.
func (b *breaker) current() (s circuitState, rest time.Duration) {
	if s = stateIn(b.phase.Load()); s != circuitOpen {
		return s, 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if rest = b.until - b.now(); rest > 0 {
		return circuitOpen, rest
	}
	return circuitHalfOpen, 0
}

// hasState reports whether the breaker differs from a new breaker. An open or half-open
// breaker that has not been used for the recovery time is treated as new.
func (b *breaker) hasState() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	switch s := stateIn(b.phase.Load()); {
	case s == circuitOpen:
		return now < b.until+b.recovery
	case s == circuitHalfOpen:
		return now-b.lastProbe < b.recovery
	case b.failures == 0:
		return b.window.last > 0 && int64(now)-b.window.last*int64(b.span)/int64(len(b.window.slices)) < int64(b.span)
	}
	return b.run.Load() > 0 && now-b.failed[(b.next+b.failures-1)%b.failures] < b.expire
}

// isRejecting reports whether requests are currently rejected.
func (b *breaker) isRejecting() bool {
	if stateIn(b.phase.Load()) == circuitClosed {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	rejected, _ := b.rejects(b.now())
	return rejected
}

// window counts requests and failures in a sliding time window that is divided into ten
// slices.
type window struct {
	slices [10]struct{ requests, failures int }
	last   int64 // number of the latest slice
}

func (w *window) add(now, span time.Duration, failed bool) {
	slice := int64(now) / max(int64(span)/int64(len(w.slices)), 1)
	if slice-w.last >= int64(len(w.slices)) {
		*w = window{last: slice}
	}
	for w.last < slice {
		w.last++
		*w.at(w.last) = struct{ requests, failures int }{}
	}
	at := w.at(slice)
	at.requests++
	if failed {
		at.failures++
	}
}

func (w *window) at(slice int64) *struct{ requests, failures int } {
	return &w.slices[slice%int64(len(w.slices))]
}

func (w *window) sum() (requests, failures int) {
	for _, s := range w.slices {
		requests += s.requests
		failures += s.failures
	}
	return requests, failures
}
