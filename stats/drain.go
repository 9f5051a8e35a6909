package stats

// Interval holds the statistics of one route and backend between two drains, or one
// consumer's part of their traffic.
type Interval struct {
	Route   string // DefaultRoute if no route matched
	Backend string // NoBackend for requests without a backend

	// The consumer of the requests. If empty, the interval covers all consumers,
	// including those with separate intervals. Intervals of consumers contain only
	// Traffic.
	Consumer string

	// The bytes transferred, including bytes of requests in flight.
	Traffic Traffic

	// The number of responses without protocol switches (101), and the number of
	// responses with a status code of 400 or above.
	Requests, Errors uint64

	// The sum of the durations of the responses in Requests, in seconds.
	Seconds float64

	// The distribution of the durations in seconds, in DDSketch's encoding, for
	// MergeSketches and Quantiles. Nil if there are no durations.
	Sketch []byte
}

// Drain calls f for each series with new statistics since the last call. The first call
// drains everything recorded so far. Each byte and each request is in exactly one
// interval without Consumer. Concurrent calls are serialized.
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
		// Drain the consumers first, so that the series includes all their traffic.
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

// drain returns the statistics since the last call, without route and backend. some
// reports whether there are any.
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

// openOutbox starts keeping counts for the next drain. The caller holds s.mu.
func (s *Series) openOutbox() {
	if s.outbox == nil {
		s.outbox = newCounts()
		s.outbox.merge(s.total)
	}
}

// handOverOutbox moves undrained counts to the successor, which has not yet absorbed the
// total. The caller holds both mutexes.
func (s *Series) handOverOutbox(successor *Series) {
	if s.outbox == nil && successor.outbox == nil {
		return // Drain has never been called
	}
	successor.openOutbox()
	if s.outbox == nil {
		successor.outbox.merge(s.total)
	} else {
		successor.outbox.merge(s.outbox)
	}
}
