package entry

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

var (
	errLength  = errors.New("the body is shorter than the Content-Length of the request")
	errLengths = errors.New("the request has several values of Content-Length")
)

// checkLengths rejects an HTTP/2 request with different values of Content-Length (RFC 9110,
// section 8.6): net/http takes the first. net/http rejects them in HTTP/1, and quic-go in
// HTTP/3.
func checkLengths(r *http.Request) error {
	lengths := r.Header["Content-Length"]
	if slices.ContainsFunc(lengths, func(other string) bool { return other != lengths[0] }) {
		return caddyhttp.Error(http.StatusBadRequest, errLengths)
	}
	return nil
}

// lengthBody is the body of an HTTP/2 or HTTP/3 request with a Content-Length. A body of
// another length is malformed (RFC 9113, section 8.1.1; RFC 9114, section 4.1.2), which is
// the client's error. In HTTP/2, net/http reports it with an unexported error; in HTTP/3, a
// shorter body just ends, and the transport would fail instead.
type lengthBody struct {
	io.ReadCloser
	left atomic.Int64
}

func checkLength(r *http.Request) {
	if _, ok := r.Body.(*lengthBody); ok || r.ProtoMajor < 2 || r.ContentLength <= 0 {
		return
	}
	body := &lengthBody{ReadCloser: r.Body}
	body.left.Store(r.ContentLength)
	r.Body = body
}

// Read implements io.Reader.
func (b *lengthBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch left := b.left.Add(-int64(n)); {
	case err == io.EOF && left > 0:
		err = MalformedError{errLength}
	case err != nil && err != io.EOF && strings.Contains(err.Error(), "declared a Content-Length"):
		err = MalformedError{err}
	}
	return n, err
}
