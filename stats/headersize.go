package stats

import (
	"net/http"
	"strconv"
)

// Sizes are estimated for HTTP/1.1 messages, in which headers are not compressed.

// requestSize returns the size of a request header without the fields in r.Header.
func requestSize(r *http.Request) (n int) {
	n = len(r.Method) + len(r.RequestURI) + len("  HTTP/1.1\r\nHost: \r\n\r\n") + len(r.Host)
	if r.ContentLength < 0 {
		n += len("Transfer-Encoding: chunked\r\n") // removed from the header by net/http
	}
	return n
}

// responseSize returns the size of a response header without its fields.
func responseSize(status int) int {
	reason := "OK"
	if status != http.StatusOK {
		reason = http.StatusText(status)
	}
	return len("HTTP/1.1 200 \r\n\r\n") + len(reason)
}

// fieldsSize returns the size of the fields in a header.
func fieldsSize(header http.Header) (n int) {
	for name, values := range header {
		for _, value := range values {
			n += len(name) + len(": \r\n") + len(value)
		}
	}
	return n
}

// addedSize returns the size of the fields that the server adds to a response.
func addedSize(header http.Header, status int, written int64, flushed bool) (n int) {
	if _, ok := header["Date"]; !ok {
		n += len("Date: \r\n") + len(http.TimeFormat)
	}
	if _, ok := header["Content-Length"]; ok || status < 200 || status == http.StatusNoContent || status == http.StatusNotModified {
		return n
	}
	const buffered = 2048 // size of net/http's buffer before it switches to chunked encoding
	if flushed || written > buffered {
		return n + len("Transfer-Encoding: chunked\r\n")
	}
	return n + len("Content-Length: \r\n") + len(strconv.FormatInt(written, 10))
}
