package stats

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Series records the requests of one route and backend. It is looked up when a
// configuration is provisioned, so that requests need no lookup. All methods are safe for
// concurrent use.
//
// Requests are recorded in one of several shards, so that concurrent requests rarely
// contend. A shard hands its counts over to the series at its first use after each period
// of ten seconds, and on every read.
type Series struct {
	route, backend string
	rec            *Recorder
	refs           int // guarded by rec.mu

	shards []shard // the length is a power of two

	mu     sync.Mutex // lock order: after the mutex of a shard
	total  *counts
	recent ring    // the last five minutes, in ticks
	hourly ring    // the last hour, in minutes
	outbox *counts // counts since the last drain; nil without a drain

	accounts accounts
}

type shard struct {
	mu     sync.Mutex
	period int64  // number of the tick of counts
	counts counts // counts that have not been handed over
	done   int64  // total number of requests ended in this shard

	successor atomic.Pointer[Series] // receives new records once the series is retired

	started atomic.Int64 // total number of requests begun in this shard
	fields  fieldSizes

	// Bytes counted during the transfer.
	flowing flowing

	_ [96]byte // pads to a pair of cache lines, which are prefetched together
}

// The durations of the rings' periods.
const (
	tick           = 10 * time.Second
	ticksPerMinute = int64(time.Minute / tick)
)

func newSeries(rec *Recorder, route, backend string) *Series {
	s := &Series{
		route:   route,
		backend: backend,
		rec:     rec,
		shards:  make([]shard, rec.shards),
		total:   newCounts(),
		recent:  ring{size: 5 * ticksPerMinute},
		hourly:  ring{size: 60},
	}
	for i := range s.shards {
		s.shards[i].counts = *newCounts()
	}
	return s
}

// Record records a response. A status of 0 means 200. Informational responses (1xx) are
// ignored, except that the status code 101 is counted, without its duration.
func (s *Series) Record(status int, took time.Duration) {
	i := rand.Uint32()
	s.begin(i)
	s.end(i, s.rec.now(), status, took, Traffic{})
}

// begin counts a request as in flight. i selects a shard; it should differ in its lowest
// bits between concurrent requests. begin returns the number of requests begun in that
// shard.
func (s *Series) begin(i uint32) (nth int64) { return s.shard(i).started.Add(1) }

func (s *Series) shard(i uint32) *shard { return &s.shards[i&uint32(len(s.shards)-1)] }

// end records the end of a request that begin has counted. at is the end time on the
// recorder's clock. traffic is the part of its bytes that has not been counted yet.
func (s *Series) end(i uint32, at time.Duration, status int, took time.Duration, traffic Traffic) {
	if status == 0 {
		status = 200
	}
	st := s.lock(i)
	if successor := st.successor.Load(); successor != nil {
		st.mu.Unlock()
		successor.begin(i)
		successor.end(i, at, status, took, traffic)
		return
	}
	st.done++
	if period := int64(at / tick); period > st.period {
		s.advance(st, period)
	}
	st.counts.traffic.add(traffic)
	if status >= 200 || status == 101 {
		st.counts.add(status, took)
	}
	st.mu.Unlock()
}

// lock locks the selected shard, or another shard if that is busy, and returns it.
func (s *Series) lock(i uint32) *shard {
	for k := range uint32(len(s.shards)) {
		st := s.shard(i + k)
		if st.mu.TryLock() {
			return st
		}
	}
	st := s.shard(i)
	st.mu.Lock()
	return st
}

// advance starts a new period. The caller holds the shard's mutex.
func (s *Series) advance(st *shard, period int64) {
	s.handOver(st)
	st.period = period
}

// collect hands over a shard's counts and the bytes of requests in flight. The caller
// holds the shard's mutex.
func (s *Series) collect(st *shard) {
	st.counts.traffic.add(st.flowing.take())
	s.handOver(st)
}

// handOver adds a shard's counts to the series and resets them. The caller holds the
// shard's mutex.
func (s *Series) handOver(st *shard) {
	if st.counts.isEmpty() {
		return
	}
	s.mu.Lock()
	s.total.merge(&st.counts)
	if s.outbox != nil {
		s.outbox.merge(&st.counts)
	}
	s.recent.add(st.period, &st.counts)
	s.hourly.add(st.period/ticksPerMinute, &st.counts)
	s.mu.Unlock()
	st.counts.reset()
}

// collectAll hands over the counts and the bytes in flight of all shards.
func (s *Series) collectAll() {
	now := int64(s.rec.now() / tick)
	for i := range s.shards {
		st := &s.shards[i]
		st.mu.Lock()
		if now > st.period {
			s.advance(st, now) // bytes of requests in flight belong to this period
		}
		s.collect(st)
		st.mu.Unlock()
	}
}

// read returns a copy of the counts within a window.
func (s *Series) read(w Window) *counts {
	s.collectAll()
	now := int64(s.rec.now() / tick)
	t := newCounts()
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

// inFlight returns the number of requests in flight.
func (s *Series) inFlight() (n int64) {
	// Read done before started, so that the difference is never negative.
	for i := range s.shards {
		s.shards[i].mu.Lock()
		n -= s.shards[i].done
		s.shards[i].mu.Unlock()
	}
	for i := range s.shards {
		n += s.shards[i].started.Load()
	}
	return n
}

// retire moves all counts to the successor. Later records of requests that still use this
// series go to the successor too.
func (s *Series) retire(successor *Series) {
	for i := range s.shards {
		st := &s.shards[i]
		st.mu.Lock()
		st.successor.Store(successor)
		s.collect(st)
		st.mu.Unlock()
	}
	s.handOverAccounts(successor)
	s.mu.Lock()
	defer s.mu.Unlock()
	successor.mu.Lock()
	defer successor.mu.Unlock()
	s.handOverOutbox(successor)
	successor.total.merge(s.total)
	successor.recent.absorb(&s.recent)
	successor.hourly.absorb(&s.hourly)
}
