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

// stream is a body on its way from one writer to several readers, who all get the
// whole of it. What the slowest of them has not had yet is kept, up to a limit; then
// the writer waits. A reader who makes the others wait for more than half of the time
// has to go on in another way: it falls behind.
type stream struct {
	limit    int64         // of bytes that are kept
	patience time.Duration // how long others wait for a reader, beside half of the time

	mu      sync.Mutex
	hash    maphash.Hash         // of all that was written. Guarded by mu.
	last    *chunk               // at first an empty one. Guarded by mu.
	flushes int                  // how often the writer wanted all to be sent. Guarded by mu.
	over    error                // io.EOF, or why it ended; nil: it goes on. Guarded by mu.
	readers map[*reader]struct{} // those who are up to date. Guarded by mu.
	changed chan struct{}        // closed at the next change; nil: nobody waits. Guarded by mu.
	starved time.Time            // since when a reader waits for more; zero: none. Guarded by mu.
	room    chan struct{}        // tells the writer to look again; nil: it does not wait. Guarded by mu.
	need    int64                // the cost of what all readers must have had for it to go on. Guarded by mu.
	slow    int                  // how many have not. Guarded by mu.
	latest  *reader              // the last that had. Guarded by mu.
	began   time.Time            // when the first bytes came. Guarded by mu.
}

// chunk is some bytes of a stream. Nothing of it changes but next, so that readers
// need no lock for the bytes, and those that everybody has had are garbage.
type chunk struct {
	data []byte
	end  int64  // where it ends in the body
	cost int64  // of this and all chunks before it
	sum  uint64 // of the body up to its end
	next *chunk // Guarded by the stream's mu.
}

const (
	chunkCost = 128      // about what a chunk takes besides its bytes
	maxChunk  = 32 << 10 // the most bytes of one
)

var (
	errBehind  = errors.New("the client was too slow for the answer that it shared")
	errNobody  = errors.New("nobody is left who wants the answer")
	errAborted = errors.New("the answer broke off")
)

// reader reads a stream from its beginning.
type reader struct {
	*stream
	at      *chunk        // the last that was handed out
	had     int64         // the cost of what was taken. Guarded by mu.
	flushed int           // the flushes that were passed on
	held    time.Duration // how long others have waited for it. Guarded by mu.
	behind  bool          // Guarded by mu.
}

// reader adds a reader. It must come before the first write.
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

// write adds a copy of p, after waiting for room. It fails if nobody reads.
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
		_, _ = s.hash.Write(c.data) // never fails
		c.end, c.cost, c.sum = s.last.end+int64(len(c.data)), s.last.cost+cost, s.hash.Sum64()
		s.last.next, s.last = c, c
		s.starved = time.Time{}
		s.wake()
	}
	return nil
}

// makeRoom waits until that much more can be kept. What has been taken by everyone
// does not count, and one chunk always fits. mu is held, except while waiting.
func (s *stream) makeRoom(cost int64) error {
	for {
		if len(s.readers) == 0 {
			return errNobody
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

// waitFor waits for a change, or until the patience with one of the readers ends. The
// time counts while somebody else could go on, and counts against the last to come.
func (s *stream) waitFor(slow []*reader) {
	s.room, s.slow, s.latest = make(chan struct{}), len(slow), nil
	room, now := s.room, time.Now()
	var timeout <-chan time.Time
	if !s.starved.IsZero() {
		left := time.Duration(math.MaxInt64)
		for _, r := range slow {
			// What is left of it grows by half of the time.
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

// allowance is how long others may have waited for a reader by now, in all: half of
// the time, and a bit.
func (s *stream) allowance(now time.Time) time.Duration {
	return s.patience + now.Sub(s.began)/2
}

// flush asks the readers to pass on at once what they have got.
func (s *stream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushes++
	s.wake()
}

// close ends the stream: with io.EOF if the body is whole.
func (s *stream) close(how error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over == nil {
		s.over = how
	}
	s.wake()
}

// wake tells those who wait for more. mu is held.
func (s *stream) wake() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// tellWriter makes the writer look again, if it waits. mu is held.
func (s *stream) tellWriter() {
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
}

// took notes that the reader has had that much, or will never have more. mu is held.
func (r *reader) took(cost int64) {
	if r.room != nil && r.had < r.need && cost >= r.need {
		if r.slow--; r.slow == 0 {
			r.latest = r
			r.tellWriter()
		}
	}
	r.had = cost
}

// leave takes the reader out.
func (r *reader) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.readers[r]; ok {
		delete(r.readers, r)
		r.took(math.MaxInt64)
	}
}

// next returns what comes next in the body, after waiting for it until done is
// closed. All that it returned before counts as taken. If there is nothing and no
// error, all is to be sent that was taken so far. The error is io.EOF at the end,
// errBehind, the one that the stream was closed with, or nil with done closed.
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
				r.tellWriter()
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

// errLeft means that the client of a reader has left.
var errLeft = errors.New("the client left")

// position is how much of the body was taken, and the sum of that.
func (r *reader) position() (n int64, sum uint64) { return r.at.end, r.at.sum }

// rest lets pass what comes after the first part of a body, if that has a certain
// sum.
type rest struct {
	to   io.Writer
	skip int64  // how much more to leave out
	sum  uint64 // what the sum of all that is left out must be
	hash maphash.Hash
}

var errChanged = errors.New("the answer is not the same as the one that it should go on from")

// newRest goes on after what a reader has taken.
func newRest(r *reader, to io.Writer) *rest {
	w := &rest{to: to}
	w.skip, w.sum = r.position()
	w.hash.SetSeed(r.hash.Seed())
	return w
}

// Write implements io.Writer. It fails with errChanged once it is clear that the
// beginning is another one.
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

// whole reports whether the body was as long as the part that was left out, and
// that part the right one.
func (w *rest) whole() bool { return w.skip == 0 && w.hash.Sum64() == w.sum }
