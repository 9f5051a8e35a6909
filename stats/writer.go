package stats

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// statusClientClosedRequest is what a request counts as whose client left
// before an answer began.
const statusClientClosedRequest = 499

// Serve calls the next handler and records how it answered, once, whatever
// happens: a panic is recorded and goes on.
//
// If the handler fails before it has answered, the status is that of its
// caddyhttp.HandlerError, or 500. If it aborts the connection
// (http.ErrAbortHandler), it is 499 if the client has left, or 502.
func (s *Series) Serve(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) (err error) {
	start := s.rec.now()
	ww := writers.Get().(*writer)
	ww.ResponseWriter = w
	s.begin(ww.stripe)
	returned := false
	log := s.rec.log.Load()
	var id uint64
	var came time.Time
	if log != nil {
		id, came = s.logRequest(log, r)
	}

	defer func() {
		var cause any
		status := ww.status
		switch {
		case !returned:
			cause = recover()
			status = ww.statusOf(panicStatus(r, cause))
		case err != nil:
			status = ww.statusOf(errorStatus(err))
		case status == http.StatusOK && r.Method == http.MethodConnect && r.ProtoMajor >= 2:
			// What is a protocol switch in HTTP/1.1 is an extended CONNECT
			// (RFC 8441) later on: a WebSocket, which lives as long as it likes.
			status = http.StatusSwitchingProtocols
		}
		now := s.rec.now()
		s.end(ww.stripe, now, status, now-start)
		if log != nil {
			s.logAnswer(log, id, came, ww, r, status, now-start)
		}

		// A hijacked connection, or a goroutine that outlives a panic, may still
		// hold the writer.
		if returned && !ww.hijacked {
			*ww = writer{stripe: ww.stripe}
			writers.Put(ww)
		}
		if cause != nil {
			panic(cause)
		}
	}()

	err = next.ServeHTTP(ww, r)
	returned = true
	return err
}

func errorStatus(err error) int {
	var failed caddyhttp.HandlerError
	if errors.As(err, &failed) && failed.StatusCode != 0 {
		return failed.StatusCode
	}
	return http.StatusInternalServerError
}

func panicStatus(r *http.Request, cause any) int {
	switch {
	case cause != http.ErrAbortHandler:
		return http.StatusInternalServerError
	case errors.Is(r.Context().Err(), context.Canceled):
		return statusClientClosedRequest
	default:
		return http.StatusBadGateway
	}
}

// A pool keeps its items by processor, and so a writer's stripe is hardly ever
// another processor's as well.
var (
	writers = sync.Pool{New: func() any { return &writer{stripe: made.Add(1)} }}
	made    atomic.Uint32
)

// writer notes the status of an answer and passes everything on, including the
// means by which files and connections are copied without a buffer.
type writer struct {
	caddyhttp.ResponseWriterWrapper
	status   int   // final status, or 0 if there is none yet
	written  int64 // bytes of the body
	hijacked bool
	stripe   uint32 // in which requests that use this writer are recorded
}

// statusOf returns the status that has been sent, or else the given one.
func (w *writer) statusOf(unsent int) int {
	if w.status != 0 {
		return w.status
	}
	return unsent
}

func (w *writer) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(p []byte) (int, error) {
	w.began()
	n, err := w.ResponseWriter.Write(p)
	w.written += int64(n)
	return n, err
}

func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	w.began()
	n, err := w.ResponseWriterWrapper.ReadFrom(r)
	w.written += n
	return n, err
}

// FlushError sends what is buffered, which may be nothing but the header.
func (w *writer) FlushError() error {
	err := http.NewResponseController(w.ResponseWriter).Flush()
	if err == nil {
		w.began()
	}
	return err
}

// Hijack hands over the connection as it is: a wrapped one could not be spliced.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.hijacked = true
		if w.status == 0 {
			w.status = http.StatusSwitchingProtocols
		}
	}
	return conn, buf, err
}

func (w *writer) began() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

// Interface guards
var (
	_ http.Hijacker = (*writer)(nil)
	_ io.ReaderFrom = (*writer)(nil)
	_ http.Pusher   = (*writer)(nil)
)
