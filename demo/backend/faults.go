package main

import (
	"net/http"
	"strconv"
	"time"
)

// block is the content of generated bodies. It is repeated.
var block = func() []byte {
	b := make([]byte, 32<<10)
	for i := range b {
		b[i] = 'a' + byte(i%26)
	}
	return b
}()

// misbehave applies the faults in the query, and reports whether the request needs no
// further handling.
func misbehave(w http.ResponseWriter, r *http.Request) (done bool) {
	query := r.URL.Query()
	if delay, err := time.ParseDuration(query.Get("delay")); err == nil {
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			return true
		}
	}
	switch {
	case query.Get("drop") == "1":
		panic(http.ErrAbortHandler)
	case query.Get("garbage") == "1":
		writeGarbage(w)
		return true
	}
	if n, ok := number(r, "cut"); ok {
		w.Header().Set("Content-Length", strconv.FormatInt(2*n, 10))
		w.WriteHeader(statusOf(r))
		fill(w, n)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	return false
}

func writeGarbage(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "garbage requires HTTP/1: "+err.Error(), http.StatusHTTPVersionNotSupported)
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("This is not HTTP.\r\n\r\n"))
}

// statusOf returns the status in the query. Default: 200.
func statusOf(r *http.Request) int {
	if n, ok := number(r, "status"); ok && n >= 200 && n <= 999 {
		return int(n)
	}
	return http.StatusOK
}

// number parses a query parameter as a nonnegative integer.
func number(r *http.Request, key string) (n int64, ok bool) {
	n, err := strconv.ParseInt(r.URL.Query().Get(key), 10, 64)
	return n, err == nil && n >= 0
}

func writeBytes(w http.ResponseWriter, status int, n int64) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	w.WriteHeader(status)
	fill(w, n)
}

// fill writes n bytes, or fewer if the client disconnects.
func fill(w http.ResponseWriter, n int64) {
	for n > 0 {
		written, err := w.Write(block[:min(n, int64(len(block)))])
		if err != nil {
			return
		}
		n -= int64(written)
	}
}
