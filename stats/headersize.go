package stats

import (
	"net/http"
	"strconv"
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
