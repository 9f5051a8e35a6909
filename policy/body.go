package policy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
)

// WatchedBody is the body of a request that notes whether reading it fails: then it was
// the client that broke off, and not the backend. The proxy may read it after its handler
// has returned.
type WatchedBody struct {
	io.ReadCloser
	failed, left atomic.Bool
}

// WatchBody puts a watched body in the place of a request's, unless it is one. It is nil
// if the request has none.
func WatchBody(r *http.Request) *WatchedBody {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	body, ok := r.Body.(*WatchedBody)
	if !ok {
		body = &WatchedBody{ReadCloser: r.Body}
		r.Body = body
	}
	return body
}

func (b *WatchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.left.Store(isDeparture(err))
		b.failed.Store(true)
	}
	return n, err
}

// isDeparture reports whether an error is none that the gateway has made because the
// client sends too much or too slowly.
func isDeparture(err error) bool {
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	return !errors.As(err, &tooLarge) && !(errors.As(err, &timeout) && timeout.Timeout())
}

// Failed reports whether the client has not sent all of it.
func (b *WatchedBody) Failed() bool { return b != nil && b.failed.Load() }

// ClientLeft reports whether that is because the client has gone away.
func (b *WatchedBody) ClientLeft() bool { return b.Failed() && b.left.Load() }
