package concurrency

import (
	"io"
	"net/http"
	"sync"

	"github.com/rgate/rgate/internal/httpx"
)

// maxEarly is the maximum size in bytes of a body that is read while its request waits.
const maxEarly = 64 << 10

// earlyBody is a request body that is read into memory while the request waits. Go's
// server detects that an HTTP/1 client has disconnected only after the body was read.
// Read returns the buffered bytes, and then the rest of the body.
type earlyBody struct {
	source io.ReadCloser
	ended  chan struct{} // closed when reading ahead has ended

	mu      sync.Mutex
	came    sync.Cond // signals that bytes were read or that reading ahead has ended
	ahead   []byte    // bytes that Read has not returned yet. Only appended to. Guarded by mu.
	err     error     // error to return after ahead. Guarded by mu.
	reading bool      // reading ahead is in progress. Guarded by mu.
	halted  bool      // reading ahead must end. Guarded by mu.
	closed  bool      // Guarded by mu.
}

// readEarly starts to read ahead the body of an HTTP/1 request if it is small. The caller
// must call halt before the request ends.
func readEarly(r *http.Request) *earlyBody {
	if r.ProtoMajor != 1 || r.ContentLength < 1 || r.ContentLength > maxEarly || r.Body == nil || r.Body == http.NoBody ||
		r.Header["Expect"] != nil || r.Header["Upgrade"] != nil {
		return nil
	}
	b := &earlyBody{ended: make(chan struct{}), ahead: make([]byte, 0, r.ContentLength), reading: true}
	b.came.L = &b.mu
	// Replace the source only: a fallback may send the body to another backend.
	if unread, ok := r.Body.(*httpx.UnreadBody); ok {
		unread.Replace(func(body io.ReadCloser) io.ReadCloser { b.source = body; return b })
	} else {
		b.source, r.Body = r.Body, b
	}
	go b.readAhead(b.ahead)
	return b
}

// readAhead reads the body until its end or until it is halted.
func (b *earlyBody) readAhead(buffer []byte) {
	defer close(b.ended)
	var beyond [1]byte
	for total := 0; ; {
		room := buffer[total:cap(buffer)]
		if len(room) == 0 {
			room = beyond[:] // the buffer is full: only the end of the body is expected
		}
		n, err := b.source.Read(room)
		if b.add(room[:n], err) {
			return
		}
		total = min(total+n, cap(buffer))
	}
}

// add appends bytes that were read and reports whether reading ahead ends.
func (b *earlyBody) add(p []byte, err error) (ends bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead = append(b.ahead, p...) // no copy: p is located after ahead in the same buffer
	b.err = err
	ends = err != nil || b.halted
	b.reading = !ends
	b.came.Broadcast()
	return ends
}

// Read implements io.Reader.
func (b *earlyBody) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.closed && len(b.ahead) == 0 && b.err == nil && b.reading {
		b.came.Wait()
	}
	switch {
	case b.closed:
		return 0, http.ErrBodyReadAfterClose
	case len(b.ahead) > 0:
		n = copy(p, b.ahead)
		if b.ahead = b.ahead[n:]; len(b.ahead) == 0 {
			err = b.err
		}
		return n, err
	case b.err != nil:
		return 0, b.err
	}
	b.mu.Unlock()
	defer b.mu.Lock()
	return b.source.Read(p)
}

// Close implements io.Closer.
func (b *earlyBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed, b.halted = true, true
	b.came.Broadcast()
	if b.reading {
		return nil // a read is in progress: the server closes the body
	}
	b.mu.Unlock()
	defer b.mu.Lock()
	return b.source.Close()
}

// halt stops reading ahead and waits until it has stopped. The rest of the body can still
// be read. halt does nothing if b is nil.
func (b *earlyBody) halt() {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.halted = true
	b.mu.Unlock()
	<-b.ended
}
