package httpcache

import "time"

// Fetch is a request to the origin whose response may be stored. End must be called when
// the request is complete.
type Fetch struct {
	store        *Store
	key, url     string
	older, newer *Fetch // neighbors in the list of the URL. Guarded by the store's mu, like the next four fields.
	invalidated  bool   // the response must not be stored
	since        time.Time
	recording    bool
	reserved     int64
	body         []byte // the recorded body. Used only by the goroutine of the request.
}

const (
	// recordingLimit is the time after which another request for the same key may record
	// a response, too. Otherwise, a slow client could prevent storing.
	recordingLimit = 10 * time.Second

	firstChunk = 4 << 10
)

// Begin registers a request to the origin.
func (s *Store) Begin(key Key) *Fetch {
	f := &Fetch{store: s, key: string(key)}
	f.url = urlOf(f.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.older = s.fetches[f.url]; f.older != nil {
		f.older.newer = f
	}
	s.fetches[f.url] = f
	return f
}

// End unregisters the request.
func (f *Fetch) End() {
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	f.release()
	switch {
	case f.newer != nil:
		f.newer.older = f.older
	case f.older != nil:
		s.fetches[f.older.url] = f.older
	default:
		delete(s.fetches, f.url)
	}
	if f.older != nil {
		f.older.newer = f.newer
	}
}

// Record reports whether the body of the response must be recorded. It returns false if
// the response was invalidated, another request records it or the store lacks space.
// length is -1 if unknown.
func (f *Fetch) Record(now time.Time, length int64) bool {
	return f.claim(now) && (length <= 0 || f.grow(length))
}

func (f *Fetch) claim(now time.Time) bool {
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.invalidated {
		return false
	}
	for other := s.fetches[f.url]; other != nil; other = other.older {
		if other.recording && !other.invalidated && other.key == f.key && now.Sub(other.since) < recordingLimit {
			return false
		}
	}
	f.recording, f.since = true, now
	return true
}

// Write appends p to the recorded body. It stops the recording if the body exceeds most
// bytes. It reports whether the recording continues.
func (f *Fetch) Write(p []byte, most int64) bool {
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

// grow reserves size bytes for the body, or stops the recording. All recordings together
// may reserve half of the store.
func (f *Fetch) grow(size int64) bool {
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

// Len returns the number of recorded bytes.
func (f *Fetch) Len() int64 { return int64(len(f.body)) }

// Drop stops the recording without storing the response.
func (f *Fetch) Drop() {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	f.release()
}

func (f *Fetch) release() {
	f.store.reserved -= f.reserved
	f.reserved, f.body, f.recording = 0, nil, false
}

// Store stores e with the recorded body. It reports whether the entry was stored.
func (f *Fetch) Store(e *Entry, q *Request) bool {
	if len(f.body) < cap(f.body)*7/8 { // release unused capacity
		f.body = append(make([]byte, 0, len(f.body)), f.body...)
	}
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.invalidated || !f.recording {
		return false
	}
	e.Body = f.body
	f.release()
	s.put(f.key, e, q)
	return e.owner != nil
}
