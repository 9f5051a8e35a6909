package stats

import (
	"net/http"
	"strconv"
	"sync/atomic"
)

// What a message takes in HTTP/1.1 is the basis on which headers are compared with
// bodies. Other versions compress them.

// requestSize returns what the header of a request takes apart from its fields.
func requestSize(r *http.Request) (n int) {
	n = len(r.Method) + len(r.RequestURI) + len("  HTTP/1.1\r\nHost: \r\n\r\n") + len(r.Host)
	if r.ContentLength < 0 {
		n += len("Transfer-Encoding: chunked\r\n") // which servers take out of the fields
	}
	return n
}

// answerSize returns what the header of an answer takes apart from its fields.
func answerSize(status int) int {
	reason := "OK"
	if status != http.StatusOK {
		reason = http.StatusText(status)
	}
	return len("HTTP/1.1 200 \r\n\r\n") + len(reason)
}

// fieldsSize returns what the fields of a header take.
func fieldsSize(header http.Header) (n int) {
	for name, values := range header {
		for _, value := range values {
			n += len(name) + len(": \r\n") + len(value)
		}
	}
	return n
}

// addedSize returns what the fields take that the server adds to an answer by itself.
func addedSize(header http.Header, status int, written int64, flushed bool) (n int) {
	if _, ok := header["Date"]; !ok {
		n += len("Date: \r\n") + len(http.TimeFormat)
	}
	if _, ok := header["Content-Length"]; ok || status < 200 || status == http.StatusNoContent || status == http.StatusNotModified {
		return n
	}
	const buffered = 2048 // by net/http, before it resorts to chunks
	if flushed || written > buffered {
		return n + len("Transfer-Encoding: chunked\r\n")
	}
	return n + len("Content-Length: \r\n") + len(strconv.FormatInt(written, 10))
}

// fieldSizes are the sizes of the fields of the last request and the last answer that
// were measured. To look at every field of every request would take longer than all
// other statistics together, and so most are taken to be as large as the one before.
type fieldSizes struct{ request, answer atomic.Uint32 }

// sampled tells whether the fields of the n-th request are measured, n from 1 on: the
// first, and of the others one in sixteen. A multiple of the golden ratio spreads
// these evenly over requests of every rhythm; each sixteenth could be all of one kind.
func sampled(n int64) bool {
	const golden = 0x9e3779b97f4a7c15 // 2^64 over the golden ratio
	return n == 1 || uint64(n)*golden < 1<<60
}
