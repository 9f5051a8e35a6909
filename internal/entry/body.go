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

// What is read of a body that no handler has read to its end.
const (
	// A connection is kept after a body of this size or less, as net/http does. After a
	// larger one of which a part was left, it is closed, whatever the part.
	mostForReuse = 256 << 10

	// Of more, this much is read, so that a client that reads nothing before it has
	// sent everything still reads the response.
	mostDrained = 16 << 20

	// How long to wait for more of it, and for all of it. The response waits meanwhile, so
	// that a client slower than drainRate, in bytes per second, gets it soon.
	drainPause = time.Second
	drainTime  = 5 * time.Second
	drainRate  = 64 << 10
)

// requestBody is the body of an HTTP/1 request, between the server and all handlers.
//
// No handler closes the server's own body. Closed before its end, net/http takes it for
// read, and what is left on the connection for the next request: Caddy hides the body's
// type from it (caddyhttp.IdleTimeoutReader), and with the type its state. For the same
// reason net/http does not know that a client waits for 100 Continue. So net/http is told
// to leave the body alone (full duplex), which also keeps it from taking bytes away from a
// transport that still sends them, and finish decides what becomes of the connection.
type requestBody struct {
	source     io.ReadCloser
	controller *http.ResponseController
	length     int64 // -1: unknown
	expects100 bool
	ctx        context.Context

	reading sync.Mutex // held during each read of the source

	begun atomic.Bool  // some handler has read
	read  atomic.Int64 // bytes
	ended atomic.Bool  // it was read to its end

	failed, malformed, closed, hijacked atomic.Bool
	stopped                             atomic.Bool  // see StopBody
	status                              atomic.Int32 // of the response
}

// bodyVar is the variable of a request that has its requestBody: others may stand around it.
const bodyVar = "rgate.request_body"

// bodyOf returns the requestBody of a request, nil if it has none.
func bodyOf(r *http.Request) *requestBody {
	body, _ := caddyhttp.GetVar(r.Context(), bodyVar).(*requestBody)
	return body
}

// guard puts a requestBody in the place of a request's body. It returns nil if the request
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

// MalformedError is the error of reading a body of which the client has sent something
// that does not belong into a body, such as a chunk without an end, or less than it has announced.
type MalformedError struct{ Cause error }

func (e MalformedError) Error() string { return e.Cause.Error() }

// Unwrap returns the cause.
func (e MalformedError) Unwrap() error { return e.Cause }

// Close makes reads fail. The server closes its own body.
func (b *requestBody) Close() error {
	b.closed.Store(true)
	return nil
}

// finish leaves the connection in a state in which no byte of the body can be taken for
// another request: at its end, or about to be closed. It is called when no handler reads
// the body any more; a transport may still try. It returns the error for the client.
func (b *requestBody) finish(w http.ResponseWriter, err error) error {
	b.closed.Store(true)
	if b.hijacked.Load() {
		return err
	}
	if b.stopped.Load() {
		closeConnection(w) // at once, for its time is up
		return b.blame(err)
	}
	if b.ended.Load() {
		if (err != nil || b.status.Load() >= 400) && b.read.Load() > mostForReuse {
			closeConnection(w) // as it is if a part of such an upload was left
		}
		return err
	}
	if b.failed.Load() {
		closeConnection(w)
		return b.blame(err)
	}
	if b.expects100 && !b.begun.Load() {
		// The client holds it back: there is nothing to wait for.
		closeConnection(w)
		_ = b.controller.SetReadDeadline(time.Unix(1, 0))
		return err
	}
	if b.drain() {
		_ = b.controller.SetReadDeadline(time.Time{})
		return err
	}
	closeConnection(w)
	// That long, net/http goes on to read when the response has been sent.
	_ = b.controller.SetReadDeadline(time.Now().Add(drainPause))
	return err
}

// StopBody ends reads of the body of a request of which the time is up, those under way
// included. Over HTTP/1, its connection ends with the response. It must be called while the
// request is being handled.
func StopBody(w http.ResponseWriter, r *http.Request) {
	controller := http.NewResponseController(w)
	if body := bodyOf(r); body != nil {
		body.stopped.Store(true)
		controller = body.controller
	}
	_ = controller.SetReadDeadline(time.Unix(1, 0))
}

// blame returns the error for the client of a request whose handlers have failed: 400 if
// the reason is its body.
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

// drain reads what is left and reports whether the whole body was so small that the
// connection can be kept.
func (b *requestBody) drain() bool {
	if b.length-b.read.Load() > mostDrained {
		return false
	}
	// A transport may be reading; the deadline ends it.
	_ = b.controller.SetReadDeadline(time.Now().Add(drainPause))
	b.reading.Lock()
	defer b.reading.Unlock()
	rest := &pacedReader{reader: b.source, controller: b.controller, begun: time.Now()}
	// The reader of Caddy's would hold on to a timeout, and keep net/http from reading on.
	if reader, _ := caddyhttp.IdleTimeoutsFromContext(b.ctx); reader != nil {
		rest.reader = reader.ReadCloser
	}
	n, err := io.CopyN(io.Discard, rest, mostDrained)
	return err == io.EOF && b.read.Load()+n <= mostForReuse
}

// pacedReader is a reader of a connection that neither pauses for long nor takes long.
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
// response, and wait between its own end and that of the connection, so that the client
// can read the response although it has not sent everything. Only a reader of net/http's
// own can ask for that.
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

// isMalformed reports whether an error of an HTTP/1 body means that the client has sent
// a malformed body, rather than too slowly, too much, or nothing any more.
func isMalformed(err error) bool {
	var network net.Error
	var errno syscall.Errno
	var tooLarge *http.MaxBytesError
	return !errors.As(err, &network) && !errors.As(err, &errno) && !errors.As(err, &tooLarge) &&
		!errors.Is(err, http.ErrBodyReadAfterClose) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) &&
		!errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.Canceled) &&
		!strings.HasPrefix(err.Error(), "tls: ") && !strings.Contains(err.Error(), "EOF")
}

// watch returns a writer that notices the status, and when a handler takes over the
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
