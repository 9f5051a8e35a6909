package coalesce

import (
	"bytes"
	"errors"
	"hash/maphash"
	"io"
	"math"
	"sync"
	"time"
)

// stream copies a body from a writer to several readers. It buffers the part that the
// slowest reader has not read, up to a limit. At the limit, the writer waits. A reader
// that delays the others for more than half of the time is removed.
type stream struct {
	limit    int64         // maximum buffered bytes
	patience time.Duration // initial time that a reader may delay the others; grows by half of the elapsed time

	mu      sync.Mutex
	hash    maphash.Hash         // hash of all written bytes. Guarded by mu.
	last    *chunk               // last chunk; initially empty. Guarded by mu.
	flushes int                  // number of flushes by the writer. Guarded by mu.
	over    error                // io.EOF or another error after close; nil before. Guarded by mu.
	readers map[*reader]struct{} // active readers. Guarded by mu.
	changed chan struct{}        // closed at the next change; nil if no reader waits. Guarded by mu.
	starved time.Time            // time at which a reader began to wait for data; zero if none waits. Guarded by mu.
	room    chan struct{}        // closed to wake the writer; nil if it does not wait. Guarded by mu.
	need    int64                // cost that all readers must reach before the writer continues. Guarded by mu.
	slow    int                  // number of readers below need. Guarded by mu.
	latest  *reader              // last reader that reached need. Guarded by mu.
	began   time.Time            // time of the first write. Guarded by mu.
}

// chunk is a part of a stream. Only next changes, so that readers can read the data
// without a lock. The garbage collector frees chunks that all readers have read.
type chunk struct {
	data []byte
	end  int64  // end offset in the body
	cost int64  // cumulative cost up to and including this chunk
	sum  uint64 // checksum of the body up to end
	next *chunk // Guarded by the stream's mu.
}

const (
	chunkCost = 128      // approximate overhead of a chunk in bytes
	maxChunk  = 32 << 10 // maximum size of a chunk in bytes
)

var (
	errBehind    = errors.New("the client was too slow for the shared response")
	errNoReaders = errors.New("all clients disconnected")
	errAborted   = errors.New("the response was aborted")
)

// reader reads a stream from its beginning.
type reader struct {
	*stream
	at      *chunk        // last chunk that was returned
	had     int64         // cumulative cost of the chunks that were read. Guarded by mu.
	flushed int           // number of flushes that next has reported
	held    time.Duration // total time for which it has delayed the others. Guarded by mu.
	behind  bool          // Guarded by mu.
}

// reader adds a reader. It must be called before the first write.
func (s *stream) reader() *reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readers == nil {
		s.readers = make(map[*reader]struct{})
	}
	if s.last == nil {
		s.last = &chunk{sum: s.hash.Sum64()}
	}
	r := &reader{stream: s, at: s.last}
	s.readers[r] = struct{}{}
	return r
}

// write appends a copy of p when there is space. It returns an error if there are no
// readers.
func (s *stream) write(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.began.IsZero() {
		s.began = time.Now()
	}
	for len(p) > 0 {
		c := &chunk{data: bytes.Clone(p[:min(len(p), maxChunk)])}
		p = p[len(c.data):]
		cost := int64(len(c.data)) + chunkCost
		if err := s.makeRoom(cost); err != nil {
			return err
		}
		_, _ = s.hash.Write(c.data) // never returns an error
		c.end, c.cost, c.sum = s.last.end+int64(len(c.data)), s.last.cost+cost, s.hash.Sum64()
		s.last.next, s.last = c, c
		s.starved = time.Time{}
		s.wake()
	}
	return nil
}

// makeRoom waits until data of the given cost can be buffered. Chunks that all readers
// have read do not count, and a single chunk is always accepted. The caller must hold mu,
// which is released while waiting.
func (s *stream) makeRoom(cost int64) error {
	for {
		if len(s.readers) == 0 {
			return errNoReaders
		}
		s.need = min(s.last.cost+cost-s.limit, s.last.cost)
		var slow []*reader
		for r := range s.readers {
			if r.had < s.need {
				slow = append(slow, r)
			}
		}
		if len(slow) == 0 {
			return nil
		}
		s.waitFor(slow)
	}
}

// waitFor waits until the slow readers have continued, or the allowance of one of them is
// used up. While another reader could continue, the waiting time is charged to the
// slowest.
func (s *stream) waitFor(slow []*reader) {
	s.room, s.slow, s.latest = make(chan struct{}), len(slow), nil
	room, now := s.room, time.Now()
	var timeout <-chan time.Time
	if !s.starved.IsZero() {
		left := time.Duration(math.MaxInt64)
		for _, r := range slow {
			// The allowance itself grows by half of the waiting time.
			left = min(left, 2*(s.allowance(now)-r.held))
		}
		timer := time.NewTimer(left)
		defer timer.Stop()
		timeout = timer.C
	}
	s.mu.Unlock()
	select {
	case <-room:
	case <-timeout:
	}
	s.mu.Lock()
	s.room = nil
	if timeout == nil {
		return
	}
	waited := time.Since(now)
	for _, r := range slow {
		if r != s.latest && r.had >= s.need {
			continue
		}
		if r.held += waited; r.had < s.need && r.held >= s.allowance(time.Now()) {
			r.behind = true
			delete(s.readers, r)
			s.wake()
		}
	}
}

// allowance returns the total time for which a reader may delay the others.
func (s *stream) allowance(now time.Time) time.Duration {
	return s.patience + now.Sub(s.began)/2
}

// flush makes the readers flush the data that they have read.
func (s *stream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushes++
	s.wake()
}

// close ends the stream. how is io.EOF if the body is complete.
func (s *stream) close(how error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over == nil {
		s.over = how
	}
	s.wake()
}

// wake wakes the waiting readers. The caller must hold mu.
func (s *stream) wake() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// wakeWriter wakes the writer if it waits. The caller must hold mu.
func (s *stream) wakeWriter() {
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
}

// took records the cumulative cost that the reader has read. The caller must hold mu.
func (r *reader) took(cost int64) {
	if r.room != nil && r.had < r.need && cost >= r.need {
		if r.slow--; r.slow == 0 {
			r.latest = r
			r.wakeWriter()
		}
	}
	r.had = cost
}

// leave removes the reader.
func (r *reader) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.readers[r]; ok {
		delete(r.readers, r)
		r.took(math.MaxInt64)
	}
}

// next returns the next bytes of the body, and marks the bytes that it returned before as
// read. It returns no bytes and no error if the caller must flush. The error is io.EOF at
// the end, errBehind for a slow client, errLeft if done is closed, or the error of close.
func (r *reader) next(done <-chan struct{}) (data []byte, err error) {
	for {
		r.mu.Lock()
		r.took(max(r.had, r.at.cost))
		switch {
		case r.behind:
			err = errBehind
		case r.at.next != nil:
			r.at = r.at.next
			data = r.at.data
		case r.flushed != r.flushes:
			r.flushed = r.flushes
		case r.over != nil:
			err = r.over
		default:
			if r.starved.IsZero() {
				r.starved = time.Now()
				r.wakeWriter()
			}
			if r.changed == nil {
				r.changed = make(chan struct{})
			}
			changed := r.changed
			r.mu.Unlock()
			select {
			case <-changed:
				continue
			case <-done:
				return nil, errLeft
			}
		}
		r.mu.Unlock()
		return data, err
	}
}

// errLeft is returned if the client of a reader has disconnected.
var errLeft = errors.New("the client disconnected")

// position returns the number of bytes that were read and their checksum.
func (r *reader) position() (n int64, sum uint64) { return r.at.end, r.at.sum }

// rest skips the first part of a body, compares its checksum, and writes the remaining
// bytes.
type rest struct {
	to   io.Writer
	skip int64  // bytes that remain to be skipped
	sum  uint64 // expected checksum of the skipped part
	hash maphash.Hash
}

var errChanged = errors.New("the new response differs from the shared response")

// newRest returns a rest that skips the part that r has read.
func newRest(r *reader, to io.Writer) *rest {
	w := &rest{to: to}
	w.skip, w.sum = r.position()
	w.hash.SetSeed(r.hash.Seed())
	return w
}

// Write implements io.Writer. It fails with errChanged if the skipped part differs.
func (w *rest) Write(p []byte) (int, error) {
	skipped := int(min(w.skip, int64(len(p))))
	if skipped > 0 {
		w.hash.Write(p[:skipped])
		w.skip -= int64(skipped)
	}
	if w.skip > 0 {
		return skipped, nil
	}
	if w.hash.Sum64() != w.sum {
		w.skip = 0
		return 0, errChanged
	}
	n, err := w.to.Write(p[skipped:])
	return skipped + n, err
}

// whole reports whether the body contained the skipped part.
func (w *rest) whole() bool { return w.skip == 0 && w.hash.Sum64() == w.sum }
