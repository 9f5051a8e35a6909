package stats

// Interval is what was recorded of one route's requests to one backend in some span
// of time, or the part of one consumer in the traffic of it.
type Interval struct {
	Route   string // DefaultRoute if no route matched
	Backend string // NoBackend if the requests went to none

	// Who sent the requests. Empty: everybody, including those who have an interval of
	// their own, in which there is traffic and nothing else.
	Consumer string

	// Bytes that flowed in the span, also those of requests that have not ended.
	Traffic Traffic

	// How many requests were answered, protocol switches (101) not counted, and how
	// many of them with 400 and above.
	Requests, Errors uint64

	// The sum of the durations of those requests.
	Seconds float64

	// The distribution of the durations in seconds, as DDSketch encodes it, for
	// MergeSketches and Quantiles. Nil if there is none.
	Sketch []byte
}

// Drain calls f with what was recorded of each series since the last call, if there
// is anything; the first call is about everything so far. A byte, a request, is in
// one interval, whatever happens meanwhile. Callers take turns.
func (rec *Recorder) Drain(f func(Interval)) {
	rec.draining.Lock()
	defer rec.draining.Unlock()
	rec.consumers.wanted.Store(true)

	var intervals []Interval
	rec.each(func(s *Series) {
		backend := s.backend
		if backend == "" {
			backend = NoBackend
		}
		// The parts come before the whole, which then has all that they have.
		parts := s.drainAccounts()
		whole, some := s.drain()
		if some {
			parts = append(parts, whole)
		}
		for _, one := range parts {
			one.Route, one.Backend = s.route, backend
			intervals = append(intervals, one)
		}
	})
	for _, one := range intervals {
		f(one)
	}
}

// drain returns what was recorded since the last call, without the names.
func (s *Series) drain() (one Interval, some bool) {
	s.foldAll()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.openOutbox()
	t := s.outbox
	if t.isEmpty() {
		return one, false
	}
	requests := t.requests()
	one = Interval{
		Traffic:  t.traffic,
		Requests: requests.Success + requests.Error,
		Errors:   requests.Error,
		Seconds:  t.took.inSeconds(),
	}
	if !t.sketch.IsEmpty() {
		one.Sketch = t.encode(false)
	}
	t.reset()
	return one, true
}

// openOutbox makes sure that what will be folded is kept for the next drain, too. The
// caller holds s.mu.
func (s *Series) openOutbox() {
	if s.outbox == nil {
		s.outbox = newTally()
		s.outbox.merge(s.total)
	}
}

// bequeathOutbox leaves what has not been drained to the heir, which has not absorbed
// the total yet. The caller holds the mutex of both.
func (s *Series) bequeathOutbox(heir *Series) {
	if s.outbox == nil && heir.outbox == nil {
		return // nobody has drained anything
	}
	heir.openOutbox()
	if s.outbox == nil {
		heir.outbox.merge(s.total)
	} else {
		heir.outbox.merge(s.outbox)
	}
}
