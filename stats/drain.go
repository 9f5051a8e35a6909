package stats

// Interval is what was recorded of one route's requests to one backend between two
// drains, or one consumer's part of the traffic.
type Interval struct {
	Route   string // DefaultRoute if no route matched
	Backend string // NoBackend if the requests went to none

	// The consumer that sent the requests. Empty: all consumers, including those with an
	// interval of their own. The interval of a consumer has traffic only.
	Consumer string

	// Bytes transferred, including those of requests that have not ended.
	Traffic Traffic

	// The number of responses, without protocol switches (101), and how many of them
	// had a status of 400 or above.
	Requests, Errors uint64

	// The sum of the durations of those requests.
	Seconds float64

	// The distribution of the durations in seconds, as DDSketch encodes it, for
	// MergeSketches and Quantiles. Nil if there is none.
	Sketch []byte
}

// Drain calls f for each series that has recorded something since the last call; the
// first call drains everything so far. Each byte and each request is in exactly one
// interval. Concurrent calls run one after the other.
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
		// Consumers are drained first: the series then has everything that they have.
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
	s.collectAll()
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

// openOutbox keeps counts for the next drain as well from now on. The caller holds
// s.mu.
func (s *Series) openOutbox() {
	if s.outbox == nil {
		s.outbox = newCounts()
		s.outbox.merge(s.total)
	}
}

// handOverOutbox moves what has not been drained to the successor, which has not
// absorbed the total yet. The caller holds both mutexes.
func (s *Series) handOverOutbox(successor *Series) {
	if s.outbox == nil && successor.outbox == nil {
		return // nothing has been drained
	}
	successor.openOutbox()
	if s.outbox == nil {
		successor.outbox.merge(s.total)
	} else {
		successor.outbox.merge(s.outbox)
	}
}
