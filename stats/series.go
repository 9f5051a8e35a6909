package stats

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Series records the requests of one route to one backend. It is resolved once,
// when a configuration is provisioned, so that a request finds it by a pointer.
// All methods are safe for concurrent use.
//
// What is recorded goes into one of several stripes, so that requests that end
// at the same time seldom meet. A stripe hands over to the series every ten
// seconds, and whenever somebody reads.
type Series struct {
	route, backend string
	rec            *Recorder
	refs           int // guarded by rec.mu

	stripes []stripe // a power of two of them

	mu     sync.Mutex // taken after a stripe's, never before
	total  *tally
	recent ring   // five minutes, in ticks
	hourly ring   // an hour, in minutes
	outbox *tally // since the last drain; nil if there was none

	accounts accounts
}

type stripe struct {
	mu     sync.Mutex
	period int64 // the tick in which the tally was counted
	tally  tally // not handed over yet
	done   int64 // requests that ended here, ever

	heir atomic.Pointer[Series] // who records instead, once the series is retired

	started atomic.Int64 // requests that began here, ever
	fields  fieldSizes

	// What has flowed, but for requests that end at once: their tally has it.
	flowing flowing

	_ [96]byte // pairs of cache lines, as they are prefetched
}

// The spans of time that rings count in.
const (
	tick           = 10 * time.Second
	ticksPerMinute = int64(time.Minute / tick)
)

func newSeries(rec *Recorder, route, backend string) *Series {
	s := &Series{
		route:   route,
		backend: backend,
		rec:     rec,
		stripes: make([]stripe, rec.stripes),
		total:   newTally(),
		recent:  ring{size: 5 * ticksPerMinute},
		hourly:  ring{size: 60},
	}
	for i := range s.stripes {
		s.stripes[i].tally = *newTally()
	}
	return s
}

// Record counts an answer. A status of 0 means 200; informational ones (1xx) are
// ignored, except that 101 is counted by its code, without its duration.
func (s *Series) Record(status int, took time.Duration) {
	i := rand.Uint32()
	s.begin(i)
	s.end(i, s.rec.now(), status, took, Traffic{})
}

// begin counts a request as in flight. Any number chooses a stripe, but those of
// requests that run at the same time should differ in their lowest bits. It returns
// how many have begun in that stripe.
func (s *Series) begin(i uint32) (nth int64) { return s.stripe(i).started.Add(1) }

func (s *Series) stripe(i uint32) *stripe { return &s.stripes[i&uint32(len(s.stripes)-1)] }

// end records a request that begin has counted, that ended at a time of the
// recorder's clock, and the bytes of it that have not been counted while they flowed.
func (s *Series) end(i uint32, at time.Duration, status int, took time.Duration, traffic Traffic) {
	if status == 0 {
		status = 200
	}
	st := s.lock(i)
	if heir := st.heir.Load(); heir != nil {
		st.mu.Unlock()
		heir.begin(i)
		heir.end(i, at, status, took, traffic)
		return
	}
	st.done++
	if period := int64(at / tick); period > st.period {
		s.advance(st, period)
	}
	st.tally.traffic.add(traffic)
	if status >= 200 || status == 101 {
		st.tally.add(status, took)
	}
	st.mu.Unlock()
}

// lock returns the stripe, or another one if that is taken, with its mutex held.
func (s *Series) lock(i uint32) *stripe {
	for k := range uint32(len(s.stripes)) {
		st := s.stripe(i + k)
		if st.mu.TryLock() {
			return st
		}
	}
	st := s.stripe(i)
	st.mu.Lock()
	return st
}

// advance begins another period. The caller holds the stripe's mutex.
func (s *Series) advance(st *stripe, period int64) {
	s.handOver(st)
	st.period = period
}

// fold hands over what a stripe has, and what flows. The caller holds the stripe's mutex.
func (s *Series) fold(st *stripe) {
	st.tally.traffic.add(st.flowing.take())
	s.handOver(st)
}

// handOver empties a stripe's tally. The caller holds the stripe's mutex.
func (s *Series) handOver(st *stripe) {
	if st.tally.isEmpty() {
		return
	}
	s.mu.Lock()
	s.total.merge(&st.tally)
	if s.outbox != nil {
		s.outbox.merge(&st.tally)
	}
	s.recent.add(st.period, &st.tally)
	s.hourly.add(st.period/ticksPerMinute, &st.tally)
	s.mu.Unlock()
	st.tally.reset()
}

// foldAll hands over what all stripes have.
func (s *Series) foldAll() {
	now := int64(s.rec.now() / tick)
	for i := range s.stripes {
		st := &s.stripes[i]
		st.mu.Lock()
		if now > st.period {
			s.advance(st, now) // what flows does so now
		}
		s.fold(st)
		st.mu.Unlock()
	}
}

// read returns a copy of what was recorded within a window.
func (s *Series) read(w Window) *tally {
	s.foldAll()
	now := int64(s.rec.now() / tick)
	t := newTally()
	var sealed []slot

	s.mu.Lock()
	switch w {
	case LastMinute:
		sealed = s.recent.since(now-ticksPerMinute, t)
	case LastFiveMinutes:
		sealed = s.recent.since(now-5*ticksPerMinute, t)
	case LastHour:
		sealed = s.hourly.since(now/ticksPerMinute-60, t)
	default:
		t.merge(s.total)
	}
	s.mu.Unlock()

	for _, slot := range sealed {
		slot.unseal(t)
	}
	return t
}

// inFlight tells how many requests have begun and not ended.
func (s *Series) inFlight() (n int64) {
	// What has ended is read first, so that the difference is never negative.
	for i := range s.stripes {
		s.stripes[i].mu.Lock()
		n -= s.stripes[i].done
		s.stripes[i].mu.Unlock()
	}
	for i := range s.stripes {
		n += s.stripes[i].started.Load()
	}
	return n
}

// retire moves everything to the heir, which from now on also records what
// requests that still hold this series report, and the bytes that still flow.
func (s *Series) retire(heir *Series) {
	for i := range s.stripes {
		st := &s.stripes[i]
		st.mu.Lock()
		st.heir.Store(heir)
		s.fold(st)
		st.mu.Unlock()
	}
	s.bequeathAccounts(heir)
	s.mu.Lock()
	defer s.mu.Unlock()
	heir.mu.Lock()
	defer heir.mu.Unlock()
	s.bequeathOutbox(heir)
	heir.total.merge(s.total)
	heir.recent.absorb(&s.recent)
	heir.hourly.absorb(&s.hourly)
}
