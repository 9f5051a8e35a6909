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

// Limits for the rest of a body that no handler has read to its end.
const (
	// The maximum size of a body after which the connection is reused, as in net/http. A
	// connection with unread bytes of a larger one is closed.
	mostForReuse = 256 << 10

	// The maximum number of bytes read of larger bodies, so that a client that reads
	// only after it has sent everything still receives the response.
	mostDrained = 16 << 20

	// The time limits for a pause and for the whole rest. The response waits meanwhile, so
	// that clients slower than drainRate, in bytes per second, are not waited for.
	drainPause = time.Second
	drainTime  = 5 * time.Second
	drainRate  = 64 << 10
)

// requestBody is the body of an HTTP/1 request, between the server and all handlers.
//
// Handlers never close the server's own body. If it were closed before its end, net/http
// would treat the rest of it as the next request: Caddy hides the body's type
// (caddyhttp.IdleTimeoutReader), and with it its state. For the same reason net/http does
// not know that a client waits for 100 Continue. Full duplex makes net/http leave the body
// alone, also while a transport still sends it; finish then decides about the connection.
type requestBody struct {
	source     io.ReadCloser
	controller *http.ResponseController
	length     int64 // -1: unknown
	expects100 bool
	ctx        context.Context

	reading sync.Mutex // held during each read of the source

	begun atomic.Bool  // a handler has read
	read  atomic.Int64 // bytes
	ended atomic.Bool  // read to its end

	failed, malformed, closed, hijacked atomic.Bool
	stopped                             atomic.Bool  // see BodyStopper
	status                              atomic.Int32 // of the response
}

// bodyVar is the variable of a request with its requestBody, which may have been wrapped.
const bodyVar = "rgate.request_body"

// bodyOf returns the requestBody of a request, or nil.
func bodyOf(r *http.Request) *requestBody {
	body, _ := caddyhttp.GetVar(r.Context(), bodyVar).(*requestBody)
	return body
}

// guard replaces a request's body by a requestBody. It returns nil if the request does not
// come from a connection of net/http's server.
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

// MalformedError is the error of reading a malformed body: one with an invalid chunk, or
// shorter than announced.
type MalformedError struct{ Cause error }

func (e MalformedError) Error() string { return e.Cause.Error() }

// Unwrap returns the cause.
func (e MalformedError) Unwrap() error { return e.Cause }

// Close makes reads fail. The server closes its own body.
func (b *requestBody) Close() error {
	b.closed.Store(true)
	return nil
}

// finish ensures that no byte of the body can be read as another request: the connection is
// at the body's end, or will be closed. It is called when no handler reads the body any
// more, although a transport may. It returns the error for the client.
func (b *requestBody) finish(w http.ResponseWriter, err error) error {
	b.closed.Store(true)
	if b.hijacked.Load() {
		return err
	}
	if b.stopped.Load() {
		closeConnection(w) // at once: its time is up
		return b.blame(err)
	}
	if b.ended.Load() {
		if (err != nil || b.status.Load() >= 400) && b.read.Load() > mostForReuse {
			closeConnection(w) // consistent with uploads that were not read to their end
		}
		return err
	}
	if b.failed.Load() {
		closeConnection(w)
		return b.blame(err)
	}
	if b.expects100 && !b.begun.Load() {
		// The client waits for 100 Continue: there is nothing to read.
		closeConnection(w)
		_ = b.controller.SetReadDeadline(time.Unix(1, 0))
		return err
	}
	if b.drain() {
		_ = b.controller.SetReadDeadline(time.Time{})
		return err
	}
	closeConnection(w)
	// net/http reads on for this long after the response.
	_ = b.controller.SetReadDeadline(time.Now().Add(drainPause))
	return err
}

// BodyStopper returns a function that stops all reads of the body of a request whose time
// is up. In HTTP/1, the connection is closed after the response. The function may be called
// by any goroutine while the request is being handled.
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

// blame returns the error for the client after handlers have failed: 400 if the cause is
// the body.
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

// drain reads the rest of the body, and reports whether the whole body was small enough
// to reuse the connection.
func (b *requestBody) drain() bool {
	if b.length-b.read.Load() > mostDrained {
		return false
	}
	// A transport may be reading; the deadline ends it.
	_ = b.controller.SetReadDeadline(time.Now().Add(drainPause))
	b.reading.Lock()
	defer b.reading.Unlock()
	rest := &pacedReader{reader: b.source, controller: b.controller, begun: time.Now()}
	// Caddy's reader would keep a timeout, and net/http could not read on.
	if reader, _ := caddyhttp.IdleTimeoutsFromContext(b.ctx); reader != nil {
		rest.reader = reader.ReadCloser
	}
	n, err := io.CopyN(io.Discard, rest, mostDrained)
	return err == io.EOF && b.read.Load()+n <= mostForReuse
}

// pacedReader reads from a connection with limits on pauses and on the total time.
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

// closeConnection makes the server of an HTTP/1 request close its connection after the
// response, with a delay so that a client that has not sent everything can read the
// response. Only a reader of net/http's own can request that.
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

// isMalformed reports whether an error of an HTTP/1 body means that the body is malformed,
// and not slow, too large or incomplete because the client left.
func isMalformed(err error) bool {
	var network net.Error
	var errno syscall.Errno
	var tooLarge *http.MaxBytesError
	return !errors.As(err, &network) && !errors.As(err, &errno) && !errors.As(err, &tooLarge) &&
		!errors.Is(err, http.ErrBodyReadAfterClose) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) &&
		!errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.Canceled) &&
		!strings.HasPrefix(err.Error(), "tls: ") && !strings.Contains(err.Error(), "EOF")
}

// watch returns a writer that records the status, and whether a handler takes over the
// connection.
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
