package concurrency

import (
	"io"
	"net/http"
	"sync"

	"github.com/rgate/rgate/internal/httpx"
)

// maxEarly is the maximum size of a body that is read while its request waits.
const maxEarly = 64 << 10

// earlyBody is the body of a request that is read into memory while the request waits: Go's
// server notices that an HTTP/1 client has left only after the body was read. Reads return
// the buffered bytes, and then the rest of the body.
type earlyBody struct {
	source io.ReadCloser
	ended  chan struct{} // closed when reading ahead has ended

	mu      sync.Mutex
	came    sync.Cond // bytes were read, or reading ahead has ended
	ahead   []byte    // bytes that were read ahead and not returned yet. Written only beyond the end. Guarded by mu.
	err     error     // the error after ahead. Guarded by mu.
	reading bool      // reading ahead is in progress. Guarded by mu.
	halted  bool      // reading ahead must end. Guarded by mu.
	closed  bool      // Guarded by mu.
}

// readEarly starts reading the body of an HTTP/1 request ahead, if it is small. The caller
// must call halt before the request ends.
func readEarly(r *http.Request) *earlyBody {
	if r.ProtoMajor != 1 || r.ContentLength < 1 || r.ContentLength > maxEarly || r.Body == nil || r.Body == http.NoBody ||
		r.Header["Expect"] != nil || r.Header["Upgrade"] != nil {
		return nil
	}
	b := &earlyBody{ended: make(chan struct{}), ahead: make([]byte, 0, r.ContentLength), reading: true}
	b.came.L = &b.mu
	// A fallback can still send the body to another backend.
	if unread, ok := r.Body.(*httpx.UnreadBody); ok {
		unread.Replace(func(body io.ReadCloser) io.ReadCloser { b.source = body; return b })
	} else {
		b.source, r.Body = r.Body, b
	}
	go b.readAhead(b.ahead)
	return b
}

// readAhead reads until the end, or until it is halted.
func (b *earlyBody) readAhead(buffer []byte) {
	defer close(b.ended)
	var beyond [1]byte
	for total := 0; ; {
		room := buffer[total:cap(buffer)]
		if len(room) == 0 {
			room = beyond[:] // to read the end
		}
		n, err := b.source.Read(room)
		if b.add(room[:n], err) {
			return
		}
		total = min(total+n, cap(buffer))
	}
}

// add adds bytes that were read, and reports whether reading ahead ends.
func (b *earlyBody) add(p []byte, err error) (ends bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead = append(b.ahead, p...) // p is already there
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
		return nil // the server closes it in any case
	}
	b.mu.Unlock()
	defer b.mu.Lock()
	return b.source.Close()
}

// halt ends reading ahead and waits for its end. The rest of the body can still be read.
// A nil body is allowed.
func (b *earlyBody) halt() {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.halted = true
	b.mu.Unlock()
	<-b.ended
}
