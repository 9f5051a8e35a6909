package coalesce

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/traffic/httpcache"
	"github.com/rgate/rgate/traffic/sharing"
)

// leadWriter is the response writer of a leader. With followers, it writes the response
// to the stream of the call, from which all clients are served. Without followers, it
// writes to the client.
type leadWriter struct {
	caddyhttp.ResponseWriterWrapper
	call     *call
	request  *http.Request
	sharing  *sharing.Rules
	before   httpx.HeaderMark
	began    bool
	hijacked bool

	// The following fields are set if the response is shared.
	own       *reader       // reader for the leader's client; nil if the response is not shared
	header    http.Header   // the header that handlers modify after the response has begun
	served    chan struct{} // closed when the client is served or has disconnected
	clientErr error         // set before served is closed
	panicked  any           // set before served is closed
}

var leadWriters = sync.Pool{New: func() any { return new(leadWriter) }}

// reset prepares the writer for another call.
func (w *leadWriter) reset() {
	w.ResponseWriter, w.call, w.request, w.sharing = nil, nil, nil, nil
	w.began, w.hijacked = false, false
	if w.own != nil {
		w.own, w.header, w.served, w.clientErr, w.panicked = nil, nil, nil, nil, nil
	}
}

func (w *leadWriter) Header() http.Header {
	if w.own != nil {
		return w.header
	}
	return w.ResponseWriter.Header()
}

func (w *leadWriter) WriteHeader(status int) {
	switch {
	case w.own != nil: // WriteHeader was called before
	case status < 200 && status != http.StatusSwitchingProtocols || w.began:
		w.ResponseWriter.WriteHeader(status)
	default:
		w.begin(status)
		w.ResponseWriter.WriteHeader(status)
		if w.own != nil {
			go w.serveClient(w.own, w.request.Context().Done())
		}
	}
}

// begin closes the call to further requests and decides whether followers share the
// response.
func (w *leadWriter) begin(status int) {
	w.began = true
	f := w.call
	if !f.close() {
		return
	}
	header, q := w.ResponseWriter.Header(), w.sharing.Varied(w.request)
	if !shareable(&q, status, header) {
		f.publishUnshared(true)
		return
	}
	w.own, w.header, w.served = f.body.reader(), header.Clone(), make(chan struct{})
	f.publish(outcome{
		shared: true, status: status, header: w.before.Change(header),
		varied: httpcache.VariantOf(&q, header, false), kind: kindOf(header),
	})
}

// serveClient sends the shared response to the leader's client.
func (w *leadWriter) serveClient(own *reader, done <-chan struct{}) {
	defer close(w.served)
	defer func() { w.panicked = recover() }()
	w.clientErr = deliver(w.ResponseWriter, own, done)
	own.leave()
	if w.clientErr == errLeft {
		w.call.leaderLeft()
	}
}

func (w *leadWriter) start() {
	if !w.began {
		w.WriteHeader(http.StatusOK)
	}
}

func (w *leadWriter) Write(p []byte) (int, error) {
	w.start()
	if w.own == nil {
		return w.ResponseWriter.Write(p)
	}
	if w.request.Method != http.MethodHead {
		if err := w.call.body.write(p); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// ReadFrom implements io.ReaderFrom.
func (w *leadWriter) ReadFrom(r io.Reader) (int64, error) {
	w.start()
	if w.own == nil {
		return w.ResponseWriterWrapper.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{w}, r)
}

// FlushError sends the header if necessary and flushes the response.
func (w *leadWriter) FlushError() error {
	w.start()
	if w.own == nil {
		return http.NewResponseController(w.ResponseWriter).Flush()
	}
	w.call.body.flush()
	return nil
}

// Hijack implements http.Hijacker. It returns an error if the response is shared.
func (w *leadWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.own != nil {
		return nil, nil, http.ErrNotSupported
	}
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.hijacked = true
		if !w.began {
			w.began = true
			if w.call.close() {
				w.call.publishUnshared(true)
			}
		}
	}
	return conn, buf, err
}

// Push implements http.Pusher.
func (w *leadWriter) Push(target string, options *http.PushOptions) error {
	if w.own != nil {
		return http.ErrNotSupported
	}
	return w.ResponseWriterWrapper.Push(target, options)
}

// finish ends the call after the handlers have returned or panicked. It waits until the
// leader's client is served, and reports whether this client fell behind.
func (w *leadWriter) finish(err error, returned bool) (behind bool) {
	f := w.call
	if !w.began {
		if returned && err == nil {
			w.start() // an empty response
		} else if w.began = true; f.close() {
			w.fail(err, returned)
		}
	}
	if w.own == nil {
		return false
	}
	how := io.EOF
	if !returned || err != nil {
		how = errAborted
	}
	f.body.close(how)
	<-w.served
	if w.panicked != nil {
		panic(w.panicked)
	}
	if w.clientErr == nil { // trailers follow the body
		for name, values := range w.header {
			if strings.HasPrefix(name, http.TrailerPrefix) {
				w.ResponseWriter.Header()[name] = values
			}
		}
	}
	return w.clientErr == errBehind
}

// fail publishes the error of the handlers to the followers.
func (w *leadWriter) fail(err error, returned bool) {
	var handlerErr caddyhttp.HandlerError
	if !returned || !errors.As(err, &handlerErr) || handlerErr.StatusCode == failure.StatusClientClosedRequest || errors.Is(err, context.Canceled) {
		w.call.publishUnshared(false)
		return
	}
	w.call.publish(outcome{shared: true, err: err, header: w.before.Change(w.ResponseWriter.Header())})
}

// kinds lists the header fields that must match when a client continues with another
// response.
var kinds = [6]string{"Content-Type", "Content-Encoding", "Content-Length", "Content-Range", "Etag", "Last-Modified"}

func kindOf(header http.Header) (kind [6]string) {
	for i, name := range kinds {
		kind[i] = header.Get(name)
	}
	return kind
}

// restWriter writes the rest of a response to a client that has received the beginning of
// an equal response.
type restWriter struct {
	caddyhttp.ResponseWriterWrapper
	want   *outcome
	rest   *rest
	header http.Header
	began  bool
	failed bool
}

func (w *restWriter) Header() http.Header { return w.header }

func (w *restWriter) WriteHeader(status int) {
	if w.began || status < 200 && status != http.StatusSwitchingProtocols {
		return
	}
	w.began = true
	w.failed = status != w.want.status || kindOf(w.header) != w.want.kind
}

func (w *restWriter) Write(p []byte) (n int, err error) {
	w.WriteHeader(http.StatusOK)
	if !w.failed {
		n, err = w.rest.Write(p)
		w.failed = err != nil
	}
	if w.failed && err == nil {
		err = errChanged
	}
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (w *restWriter) ReadFrom(r io.Reader) (int64, error) { return io.Copy(struct{ io.Writer }{w}, r) }

// FlushError flushes the response.
func (w *restWriter) FlushError() error { return http.NewResponseController(w.ResponseWriter).Flush() }

// Hijack returns an error because the response has begun.
func (w *restWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, http.ErrNotSupported
}

func (w *restWriter) complete() bool { return w.began && !w.failed && w.rest.whole() }

// Interface guards
var (
	_ io.ReaderFrom = (*leadWriter)(nil)
	_ http.Hijacker = (*leadWriter)(nil)
	_ http.Pusher   = (*leadWriter)(nil)
	_ io.ReaderFrom = (*restWriter)(nil)
	_ http.Hijacker = (*restWriter)(nil)
)
