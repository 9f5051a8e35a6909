package security

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
)

// headerSize is how large the header of a request is in HTTP/1.1: its fields, each
// with a colon, a space and the end of the line.
func headerSize(r *http.Request) int64 {
	size := len("Host: \r\n") + len(r.Host)
	for name, values := range r.Header {
		for _, value := range values {
			size += len(name) + len(value) + len(": \r\n")
		}
	}
	return int64(size)
}

// limitedBody is a body with a limit (http.MaxBytesReader) that remembers when it was
// exceeded. It may be read after its request was answered, also while it is.
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
