package security

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
)

// headerSize returns the size of a request header in HTTP/1.1. Each field counts with its
// colon, space and line break.
func headerSize(r *http.Request) int64 {
	size := len("Host: \r\n") + len(r.Host)
	for name, values := range r.Header {
		for _, value := range values {
			size += len(name) + len(value) + len(": \r\n")
		}
	}
	return int64(size)
}

// limitedBody is a request body with a size limit (http.MaxBytesReader) that records
// whether the limit was exceeded. The body can be read while the response is written.
type limitedBody struct {
	io.ReadCloser
	exceeded atomic.Bool
}

// Read implements io.Reader.
func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	var tooLarge *http.MaxBytesError
	if err != nil && errors.As(err, &tooLarge) {
		b.exceeded.Store(true)
	}
	return n, err
}
