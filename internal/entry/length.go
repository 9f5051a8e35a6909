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
	errLengths = errors.New("the request has different values of Content-Length")
)

// checkLengths rejects HTTP/2 requests with different values of Content-Length (RFC
// 9110, section 8.6). net/http uses the first value in HTTP/2, but rejects such
// requests in HTTP/1. quic-go rejects them in HTTP/3.
func checkLengths(r *http.Request) error {
	lengths := r.Header["Content-Length"]
	if slices.ContainsFunc(lengths, func(other string) bool { return other != lengths[0] }) {
		return caddyhttp.Error(http.StatusBadRequest, errLengths)
	}
	return nil
}

// lengthBody is the body of an HTTP/2 or HTTP/3 request with Content-Length. A body of
// another length is malformed (RFC 9113, section 8.1.1; RFC 9114, section 4.1.2), which
// is a client error. In HTTP/2, net/http returns an unexported error for it. In HTTP/3,
// a shorter body ends without an error, and the transport would fail instead.
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
