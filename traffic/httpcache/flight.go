package httpcache

import "time"

// Flight is a request that is under way to the origin, and whose answer may be
// stored. It must be ended.
type Flight struct {
	store        *Store
	key, url     string
	older, newer *Flight // of the same URL. Guarded by the store's mutex, as all below.
	spoiled      bool    // what it brings may be outdated
	since        time.Time
	recording    bool
	reserved     int64
	body         []byte // belongs to whoever has the flight
}

const (
	// monopoly is for how long nobody else receives the same answer to store it: a
	// client that reads slowly may take forever.
	monopoly = 10 * time.Second

	firstChunk = 4 << 10
)

// Begin notes that a request goes to the origin.
func (s *Store) Begin(key Key) *Flight {
	f := &Flight{store: s, key: string(key)}
	f.url = urlOf(f.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.older = s.flights[f.url]; f.older != nil {
		f.older.newer = f
	}
	s.flights[f.url] = f
	return f
}

// End notes that the request has ended.
func (f *Flight) End() {
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	f.release()
	switch {
	case f.newer != nil:
		f.newer.older = f.older
	case f.older != nil:
		s.flights[f.older.url] = f.older
	default:
		delete(s.flights, f.url)
	}
	if f.older != nil {
		f.older.newer = f.newer
	}
}

// Record reports whether the body of the answer is to be recorded: nobody else does,
// and there is room for it. length is -1 if it is not known.
func (f *Flight) Record(now time.Time, length int64) bool {
	return f.claim(now) && (length <= 0 || f.grow(length))
}

func (f *Flight) claim(now time.Time) bool {
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.spoiled {
		return false
	}
	for other := s.flights[f.url]; other != nil; other = other.older {
		if other.recording && !other.spoiled && other.key == f.key && now.Sub(other.since) < monopoly {
			return false
		}
	}
	f.recording, f.since = true, now
	return true
}

// Write appends to the body, which may become as large as most. It reports whether
// the recording goes on.
func (f *Flight) Write(p []byte, most int64) bool {
	need := int64(len(f.body) + len(p))
	if need > most {
		f.Drop()
		return false
	}
	if need > int64(cap(f.body)) && !f.grow(min(most, max(need, 2*int64(cap(f.body)), firstChunk))) {
		return false
	}
	f.body = append(f.body, p...)
	return true
}

// grow makes the body's buffer as large as that, or ends the recording. What is being
// received may take half of the store.
func (f *Flight) grow(size int64) bool {
	s := f.store
	s.mu.Lock()
	ok := f.recording && s.reserved+size <= s.most/2 && s.makeRoom(size)
	if ok {
		s.reserved += size
	} else {
		f.release()
	}
	s.mu.Unlock()
	if !ok {
		return false
	}
	body := append(make([]byte, 0, size), f.body...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved -= f.reserved
	f.body, f.reserved = body, size
	return true
}

// Len is how much of the body has come.
func (f *Flight) Len() int64 { return int64(len(f.body)) }

// Drop ends the recording: the answer is not to be stored.
func (f *Flight) Drop() {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	f.release()
}

func (f *Flight) release() {
	f.store.reserved -= f.reserved
	f.reserved, f.body, f.recording = 0, nil, false
}

// Store stores the answer to a request, with the body that has been recorded. It
// reports whether it did.
func (f *Flight) Store(e *Entry, q *Request) bool {
	if len(f.body) < cap(f.body)*7/8 { // what is kept shall not be half empty
		f.body = append(make([]byte, 0, len(f.body)), f.body...)
	}
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.spoiled || !f.recording {
		return false
	}
	e.Body = f.body
	f.release()
	s.put(f.key, e, q)
	return e.home != nil
}
