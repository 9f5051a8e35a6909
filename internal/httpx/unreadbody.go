package httpx

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// UnreadBody wraps a request body and records whether it was read, so that an unread
// body can be sent to another backend. A transport may read the body after its handler
// has failed.
type UnreadBody struct {
	io.ReadCloser
	mu    sync.Mutex // held during the first read
	began bool       // a read has started. Guarded by mu.
	given bool       // the body was returned to the request. Guarded by mu.
}

// WrapBody replaces the body of a request with an UnreadBody.
func WrapBody(r *http.Request) *UnreadBody {
	body := &UnreadBody{ReadCloser: r.Body}
	r.Body = body
	return body
}

var errGiven = errors.New("the request has been sent to another backend")

// Read implements io.Reader. It fails after Give.
func (b *UnreadBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	b.began = true
	given := b.given
	b.mu.Unlock()
	if given {
		return 0, errGiven
	}
	return b.ReadCloser.Read(p)
}

// Close closes the body if a read has started. The server closes the body in any case.
func (b *UnreadBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.began || b.given {
		return nil
	}
	return b.ReadCloser.Close()
}

// Untouched reports whether no read of the body has started. A nil body is untouched.
func (b *UnreadBody) Untouched() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.began
}

// Give restores the original body of the request. Later reads of the wrapper fail.
func (b *UnreadBody) Give(r *http.Request) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.given = true
	r.Body = b.ReadCloser
}

// Replace replaces the wrapped body, which must be unread.
func (b *UnreadBody) Replace(with func(io.ReadCloser) io.ReadCloser) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ReadCloser = with(b.ReadCloser)
}
