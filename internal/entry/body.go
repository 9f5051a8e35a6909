package entry

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"
)

// The limits for draining a body that no handler has read to its end.
const (
	// The maximum size of a body after which the connection is reused, as in net/http.
	// The connection is closed after larger bodies with an unread rest.
	mostForReuse = 256 << 10

	// The maximum number of bytes to read of larger bodies. Some clients read the
	// response only after they have sent the whole body.
	mostDrained = 16 << 20

	// The time limits for a pause and for the whole drain, and the minimum rate in
	// bytes per second. The response waits for the drain, so slower clients are not
	// waited for.
	drainPause = time.Second
	drainTime  = 5 * time.Second
	drainRate  = 64 << 10
)

// requestBody is the body of an HTTP/1 request, between the server and all handlers.
//
// Handlers never close the server's own body. Otherwise, net/http would parse the
// unread rest as the next request, because Caddy hides the type and state of the body
// (caddyhttp.IdleTimeoutReader). For the same reason, net/http does not know that a
// client waits for 100 Continue. In full-duplex mode, net/http does not touch the body,
// even while a transport still reads it. finish then decides whether to close the
// connection.
type requestBody struct {
	source     io.ReadCloser
	controller *http.ResponseController
	length     int64 // -1: unknown
	expects100 bool
	ctx        context.Context

	reading sync.Mutex // held during each read of the source

	begun atomic.Bool  // a handler has started to read
	read  atomic.Int64 // bytes read
	ended atomic.Bool  // end of the body reached

	failed, malformed, closed, hijacked atomic.Bool
	stopped                             atomic.Bool  // set by BodyStopper
	status                              atomic.Int32 // response status
}

// bodyVar is the name of the request variable that holds the requestBody. The request's
// Body may wrap it.
const bodyVar = "rgate.request_body"

// bodyOf returns the requestBody of a request, or nil.
func bodyOf(r *http.Request) *requestBody {
	body, _ := caddyhttp.GetVar(r.Context(), bodyVar).(*requestBody)
	return body
}

// guard replaces a request's body with a requestBody. It returns nil if the request
// does not come from a connection of net/http's server.
func guard(w http.ResponseWriter, r *http.Request) *requestBody {
	body := &requestBody{
		source:     r.Body,
		controller: http.NewResponseController(w),
		length:     r.ContentLength,
		expects100: httpguts.HeaderValuesContainsToken(r.Header["Expect"], "100-continue"),
		ctx:        r.Context(),
	}
	if r.Body == nil || body.controller.EnableFullDuplex() != nil {
		return nil
	}
	r.Body = body
	caddyhttp.SetVar(r.Context(), bodyVar, body)
	return body
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	b.begun.Store(true)
	n, err := b.source.Read(p)
	b.read.Add(int64(n))
	switch {
	case err == nil:
	case err == io.EOF:
		b.ended.Store(true)
	default:
		if isMalformed(err) {
			err = MalformedError{err}
			b.malformed.Store(true)
		}
		b.failed.Store(true)
	}
	return n, err
}

// MalformedError is the error of reading a malformed body: an invalid chunk, or a
// length that differs from Content-Length.
type MalformedError struct{ Cause error }

func (e MalformedError) Error() string { return e.Cause.Error() }

// Unwrap returns the cause.
func (e MalformedError) Unwrap() error { return e.Cause }

// Close makes reads fail. It does not close the server's body.
func (b *requestBody) Close() error {
	b.closed.Store(true)
	return nil
}

// finish ensures that no byte of the body can be parsed as another request: it reads
// the body to its end or closes the connection. It is called after all handlers have
// returned; a transport may still read. It returns the error for the client.
func (b *requestBody) finish(w http.ResponseWriter, err error) error {
	b.closed.Store(true)
	if b.hijacked.Load() {
		return err
	}
	if b.stopped.Load() {
		closeConnection(w) // the time limit is exceeded
		return b.blame(err)
	}
	if b.ended.Load() {
		if (err != nil || b.status.Load() >= 400) && b.read.Load() > mostForReuse {
			closeConnection(w) // like uploads that are not read to their end
		}
		return err
	}
	if b.failed.Load() {
		closeConnection(w)
		return b.blame(err)
	}
	if b.expects100 && !b.begun.Load() {
		// The client waits for 100 Continue and sends no body.
		closeConnection(w)
		_ = b.controller.SetReadDeadline(time.Unix(1, 0))
		return err
	}
	if b.drain() {
		_ = b.controller.SetReadDeadline(time.Time{})
		return err
	}
	closeConnection(w)
	// net/http continues to read for this duration after the response.
	_ = b.controller.SetReadDeadline(time.Now().Add(drainPause))
	return err
}

// BodyStopper returns a function that stops all reads of a request's body after a
// timeout. In HTTP/1, the connection is closed after the response. Any goroutine may
// call the function while the request is handled.
func BodyStopper(w http.ResponseWriter, r *http.Request) (stop func()) {
	controller, body := http.NewResponseController(w), bodyOf(r)
	if body != nil {
		controller = body.controller
	}
	return func() {
		if body != nil {
			body.stopped.Store(true)
		}
		_ = controller.SetReadDeadline(time.Unix(1, 0))
	}
}

// blame returns the error for the client after handlers have failed. It is 400 if the
// body is malformed.
func (b *requestBody) blame(err error) error {
	if err == nil || !b.malformed.Load() {
		return err
	}
	var handlerErr caddyhttp.HandlerError
	if errors.As(err, &handlerErr) {
		handlerErr.StatusCode = http.StatusBadRequest
		return handlerErr
	}
	return caddyhttp.Error(http.StatusBadRequest, err)
}

// drain reads the rest of the body. It reports whether the connection can be reused.
func (b *requestBody) drain() bool {
	if b.length-b.read.Load() > mostDrained {
		return false
	}
	// The deadline ends the read of a transport, if any.
	_ = b.controller.SetReadDeadline(time.Now().Add(drainPause))
	b.reading.Lock()
	defer b.reading.Unlock()
	rest := &pacedReader{reader: b.source, controller: b.controller, begun: time.Now()}
	// Bypass Caddy's reader: its idle timeout would prevent net/http from reading
	// further.
	if reader, _ := caddyhttp.IdleTimeoutsFromContext(b.ctx); reader != nil {
		rest.reader = reader.ReadCloser
	}
	n, err := io.CopyN(io.Discard, rest, mostDrained)
	return err == io.EOF && b.read.Load()+n <= mostForReuse
}

// pacedReader limits the pauses and the total time of reads from a connection.
type pacedReader struct {
	reader     io.Reader
	controller *http.ResponseController
	begun      time.Time
	read       int64
}

// Read implements io.Reader.
func (r *pacedReader) Read(p []byte) (int, error) {
	allowed := min(drainPause+time.Duration(r.read)*time.Second/drainRate, time.Since(r.begun)+drainPause, drainTime)
	if err := r.controller.SetReadDeadline(r.begun.Add(allowed)); err != nil {
		return 0, err
	}
	n, err := r.reader.Read(p)
	r.read += int64(n)
	return n, err
}

// closeConnection makes the server close an HTTP/1 connection after the response.
// net/http delays the close, so that a client that is still sending can read the
// response. Only http.MaxBytesReader can request the delay.
func closeConnection(w http.ResponseWriter) {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = wrapper.Unwrap()
	}
	var tooMuch [1]byte
	_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(tooMuch[:])
}

// isMalformed reports whether an error of reading an HTTP/1 body means that the body is
// malformed. It excludes slow, oversized and aborted uploads.
func isMalformed(err error) bool {
	var network net.Error
	var errno syscall.Errno
	var tooLarge *http.MaxBytesError
	return !errors.As(err, &network) && !errors.As(err, &errno) && !errors.As(err, &tooLarge) &&
		!errors.Is(err, http.ErrBodyReadAfterClose) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) &&
		!errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.Canceled) &&
		!strings.HasPrefix(err.Error(), "tls: ") && !strings.Contains(err.Error(), "EOF")
}

// watch returns a response writer that records the status and whether a handler hijacks
// the connection.
func (b *requestBody) watch(w http.ResponseWriter) http.ResponseWriter {
	return &watchingWriter{caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, b}
}

type watchingWriter struct {
	caddyhttp.ResponseWriterWrapper
	body *requestBody
}

// WriteHeader implements http.ResponseWriter.
func (w *watchingWriter) WriteHeader(status int) {
	w.body.status.Store(int32(status))
	w.ResponseWriter.WriteHeader(status)
}

// Hijack implements http.Hijacker.
func (w *watchingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.body.hijacked.Store(true)
	}
	return conn, buffered, err
}
