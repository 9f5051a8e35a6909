package circuitbreaker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rgate/rgate/policy"
)

// breaker is a circuit breaker (Nygard, Release It!, 2007): closed, it lets requests
// pass and watches how they end; open, it lets none pass; half-open, it lets a few
// pass to find out.
//
// It is not gobreaker's, which cannot say when it will try again, tells of changes
// while it is locked, and takes that lock twice for each request. This one takes
// none as long as all goes well.
type breaker struct {
	breakerOptions
	now func() time.Duration // monotonic

	// The state in the two lowest bits, and above them how often it has changed.
	// Written under mu.
	phase atomic.Uint64

	// How many failures there were in a row, if that is what matters. Written under mu.
	run atomic.Int64

	entered [3]atomic.Uint64 // how often each state was entered

	instance policy.Instance // the container that it is for, in a circuit with one for each
	retired  bool            // no longer the one for its address. Guarded by the circuit's mu.
	troubled int32           // 1 while it is not closed. Guarded by the circuit's mu.

	mu        sync.Mutex
	failed    []time.Duration // when the last failures were, in a ring. Guarded by mu.
	next      int             // where the next one goes. Guarded by mu.
	window    window          // Guarded by mu.
	until     time.Duration   // when an open breaker tries again. Guarded by mu.
	probing   int             // probes under way. Guarded by mu.
	succeeded int             // probes that succeeded. Guarded by mu.
	lastProbe time.Duration   // when the last one began. Guarded by mu.
}

// breakerOptions are what a breaker goes by.
type breakerOptions struct {
	failures int           // how many in a row open it; 0 if the ratio matters
	expire   time.Duration // how long a failure counts as one of a row
	ratio    float64       // which share of failures opens it
	minimum  int           // of how many requests at least
	span     time.Duration // within how long
	recovery time.Duration // how long it stays open
	probes   int           // how many requests it takes to close it again
}

// circuitState is the state of a breaker.
type circuitState uint8

const (
	circuitClosed circuitState = iota
	circuitHalfOpen
	circuitOpen
)

func (s circuitState) String() string { return [...]string{"closed", "half_open", "open"}[s] }

// verdict is how a request ended, as far as the backend is concerned.
type verdict uint8

const (
	unknown verdict = iota // the client left, or something else went wrong
	succeeded
	failed
)

// change is that of a breaker's state. In none, both are the same.
type change struct{ from, to circuitState }

func (c change) happened() bool { return c.from != c.to }

// admission is what a breaker says to a request. One that is admitted must be
// ended with its ticket.
type admission struct {
	admitted bool
	ticket   uint64
	wait     time.Duration // how long to wait, if it is not admitted
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

// begin asks whether a request may pass.
func (b *breaker) begin() admission {
	if phase := b.phase.Load(); stateIn(phase) == circuitClosed {
		return admission{admitted: true, ticket: phase}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now, from := b.now(), stateIn(b.phase.Load())
	if refused, wait := b.refuses(now); refused {
		return admission{wait: wait}
	}
	if from == circuitClosed {
		return admission{admitted: true, ticket: b.phase.Load()}
	}
	if from == circuitOpen || b.probing+b.succeeded >= b.probes {
		// A probe that has not ended in all that time does not keep it half-open.
		b.enter(circuitHalfOpen)
	}
	b.probing++
	b.lastProbe = now
	return admission{admitted: true, ticket: b.phase.Load(), change: change{from, circuitHalfOpen}}
}

// refuses reports whether no request may pass now, and how long that will be so if
// it is known. It must be called with mu held.
func (b *breaker) refuses(now time.Duration) (refused bool, wait time.Duration) {
	switch stateIn(b.phase.Load()) {
	case circuitOpen:
		return now < b.until, b.until - now
	case circuitHalfOpen:
		return b.probing+b.succeeded >= b.probes && now-b.lastProbe < b.recovery, 0
	}
	return false, 0
}

// end tells how the request with a ticket ended. One that began in another phase
// does not matter any more.
func (b *breaker) end(ticket uint64, how verdict) change {
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

// endProbe must be called with mu held.
func (b *breaker) endProbe(how verdict) {
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

// count counts a request of a closed breaker and reports whether that opens it. It
// must be called with mu held.
func (b *breaker) count(how verdict) (opens bool) {
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
	b.next = (b.next + 1) % b.failures // now that of the oldest
	run := min(b.run.Load()+1, int64(b.failures))
	b.run.Store(run)
	return run == int64(b.failures) && now-b.failed[b.next] <= b.expire
}

// enter must be called with mu held.
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

// look returns the state, and of an open breaker how long it will stay so. One
// whose time is over counts as half-open, for the next request will be let through.
func (b *breaker) look() (s circuitState, rest time.Duration) {
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

// matters reports whether anything depends on what the breaker knows. If not, a new
// one is as good.
func (b *breaker) matters() bool {
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

// full reports whether no request may pass now.
func (b *breaker) full() bool {
	if stateIn(b.phase.Load()) == circuitClosed {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	refused, _ := b.refuses(b.now())
	return refused
}

// window counts requests and failures of the last time, in slices of a tenth.
type window struct {
	slices [10]struct{ requests, failures int }
	last   int64 // the number of the newest slice
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
