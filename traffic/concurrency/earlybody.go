package concurrency

import (
	"io"
	"net/http"
	"sync"

	"github.com/rgate/rgate/internal/httpx"
)

// mostEarly is how large a body may be that is read while its request waits.
const mostEarly = 64 << 10

// earlyBody is the body of a request that is read into memory while the request waits:
// Go's server notices that an HTTP/1 client has left only once it has read the body.
// Who reads it gets what is there, and then what comes.
type earlyBody struct {
	source io.ReadCloser
	ended  chan struct{} // closed when nobody reads ahead any more

	mu      sync.Mutex
	came    sync.Cond // something did, or reading ahead has ended
	ahead   []byte    // what was read and not given yet. Its room is only written beyond its end. Guarded by mu.
	err     error     // what comes after that. Guarded by mu.
	reading bool      // ahead. Guarded by mu.
	halted  bool      // the reading is to end. Guarded by mu.
	closed  bool      // Guarded by mu.
}

// readEarly begins to read the body of a request, if that is small and says whether
// the client is there. Whoever calls it must call halt before the request has ended.
func readEarly(r *http.Request) *earlyBody {
	if r.ProtoMajor != 1 || r.ContentLength < 1 || r.ContentLength > mostEarly || r.Body == nil || r.Body == http.NoBody ||
		r.Header["Expect"] != nil || r.Header["Upgrade"] != nil {
		return nil
	}
	b := &earlyBody{ended: make(chan struct{}), ahead: make([]byte, 0, r.ContentLength), reading: true}
	b.came.L = &b.mu
	// That it is read ahead does not keep a fallback from sending it elsewhere.
	if watched, ok := r.Body.(*httpx.UnreadBody); ok {
		watched.Replace(func(body io.ReadCloser) io.ReadCloser { b.source = body; return b })
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
			room = beyond[:] // only the end is still to come
		}
		n, err := b.source.Read(room)
		if b.add(room[:n], err) {
			return
		}
		total = min(total+n, cap(buffer))
	}
}

// add takes what was read, and reports whether that was all.
func (b *earlyBody) add(p []byte, err error) (ends bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead = append(b.ahead, p...) // where it is already
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

// halt ends reading ahead, and waits for that. What was not read yet can be read
// further. Nil reads nothing.
func (b *earlyBody) halt() {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.halted = true
	b.mu.Unlock()
	<-b.ended
}
