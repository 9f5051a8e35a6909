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

	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/httpcache"
	"github.com/rgate/rgate/traffic/sharing"
)

// leadWriter is what the leader of a flight writes its answer to. If there are
// followers, it goes into the flight's stream, and from there to the leader's client
// as to theirs; if not, straight to the client.
type leadWriter struct {
	caddyhttp.ResponseWriterWrapper
	flight   *flight
	request  *http.Request
	sharing  *sharing.Rules
	before   httpx.HeaderMark
	began    bool
	hijacked bool

	// If the answer is shared:
	own       *reader       // for the leader's client; nil: it is not shared
	header    http.Header   // what handlers see of the header from then on
	served    chan struct{} // closed when the client has had it all, or has left
	clientErr error         // set before served is closed
	panicked  any           // set before served is closed
}

var leadWriters = sync.Pool{New: func() any { return new(leadWriter) }}

// reset makes the writer ready for another flight. The mark is overwritten then.
func (w *leadWriter) reset() {
	w.ResponseWriter, w.flight, w.request, w.sharing = nil, nil, nil, nil
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
	case w.own != nil: // there was one before
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

// begin ends joining, and decides whether those who have joined get this answer.
func (w *leadWriter) begin(status int) {
	w.began = true
	f := w.flight
	if !f.seal() {
		return
	}
	header, q := w.ResponseWriter.Header(), w.sharing.Varied(w.request)
	if !shareable(&q, status, header) {
		f.landApart(true)
		return
	}
	w.own, w.header, w.served = f.body.reader(), header.Clone(), make(chan struct{})
	f.land(outcome{
		shared: true, status: status, header: w.before.Change(header),
		varied: httpcache.VariantOf(&q, header, false), kind: kindOf(header),
	})
}

// serveClient lets the leader's client have the answer like the followers.
func (w *leadWriter) serveClient(own *reader, done <-chan struct{}) {
	defer close(w.served)
	defer func() { w.panicked = recover() }()
	w.clientErr = deliver(w.ResponseWriter, own, done)
	own.leave()
	if w.clientErr == errLeft {
		w.flight.leaderLeft()
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
		if err := w.flight.body.write(p); err != nil {
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

// FlushError sends what is buffered, which may be nothing but the header.
func (w *leadWriter) FlushError() error {
	w.start()
	if w.own == nil {
		return http.NewResponseController(w.ResponseWriter).Flush()
	}
	w.flight.body.flush()
	return nil
}

// Hijack hands over the connection. Nobody shares what follows.
func (w *leadWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.own != nil {
		return nil, nil, http.ErrNotSupported
	}
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.hijacked = true
		if !w.began {
			w.began = true
			if w.flight.seal() {
				w.flight.landApart(true)
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

// finish ends the flight once the handlers have returned, with an error or not, or
// have panicked. It waits until the leader's client has been served, and reports
// whether that one fell behind.
func (w *leadWriter) finish(err error, returned bool) (behind bool) {
	f := w.flight
	if !w.began {
		if returned && err == nil {
			w.start() // an empty answer
		} else if w.began = true; f.seal() {
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
	if w.clientErr == nil { // trailers come last
		for name, values := range w.header {
			if strings.HasPrefix(name, http.TrailerPrefix) {
				w.ResponseWriter.Header()[name] = values
			}
		}
	}
	return w.clientErr == errBehind
}

// fail tells the followers what the handlers returned in place of an answer.
func (w *leadWriter) fail(err error, returned bool) {
	var handlerErr caddyhttp.HandlerError
	if !returned || !errors.As(err, &handlerErr) || handlerErr.StatusCode == policy.StatusClientClosedRequest || errors.Is(err, context.Canceled) {
		w.flight.landApart(false)
		return
	}
	w.flight.land(outcome{shared: true, err: err, header: w.before.Change(w.ResponseWriter.Header())})
}

// kinds are the fields by which an answer is known to be the same as another one.
var kinds = [6]string{"Content-Type", "Content-Encoding", "Content-Length", "Content-Range", "Etag", "Last-Modified"}

func kindOf(header http.Header) (kind [6]string) {
	for i, name := range kinds {
		kind[i] = header.Get(name)
	}
	return kind
}

// restWriter is what an answer is written to of which the client has had the
// beginning, from another answer.
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

// FlushError sends what is buffered.
func (w *restWriter) FlushError() error { return http.NewResponseController(w.ResponseWriter).Flush() }

// Hijack fails: the answer has begun.
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
