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
// happens: a panic is recorded and goes on. The details are for the log of requests,
// which asks for them once the handler has returned; nil: there are none.
//
// If the handler fails before it has answered, the status is that of its
// caddyhttp.HandlerError, or 500. If it aborts the connection
// (http.ErrAbortHandler), it is 499 if the client has left, or 502.
func (s *Series) Serve(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, details LogDetails) (err error) {
	log := s.rec.log.Load()
	var start time.Duration
	var id uint64
	var came time.Time
	if log == nil {
		start = s.rec.now()
	} else {
		id, came = s.logRequest(log, r)
		start = came.Sub(s.rec.began)
	}
	ww := writers.Get().(*writer)
	ww.begin(s, w, r)
	returned := false

	defer func() {
		var cause any
		status := ww.status
		switch {
		case !returned:
			cause = recover()
			status = ww.statusOf(panicStatus(r, cause))
		case err != nil:
			status = ww.statusOf(errorStatus(err))
		case status == http.StatusOK && r.ProtoMajor >= 2 && (r.Method == http.MethodConnect || r.Header["Upgrade"] != nil):
			// What is a protocol switch in HTTP/1.1 is an extended CONNECT
			// (RFC 8441) later on: a WebSocket, which lives as long as it likes.
			status = http.StatusSwitchingProtocols
		}
		traffic := ww.settle(status, returned)
		now := s.rec.now()
		s.end(ww.lane, now, status, now-start, traffic)
		if ww.account != nil {
			ww.account.add(traffic) // a part never comes before the whole
		}
		if log != nil {
			s.logAnswer(log, id, came, ww, r, details, status, now-start)
		}

		// A hijacked connection, or a goroutine that outlives a panic, may still
		// hold the writer.
		if returned && !ww.hijacked {
			*ww = writer{lane: ww.lane}
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

// A pool keeps its items by processor, and so a writer's lane is hardly ever another
// processor's as well.
var (
	writers = sync.Pool{New: func() any { return &writer{lane: made.Add(1)} }}
	made    atomic.Uint32
)

// writer notes the status and the size of an answer and passes everything on,
// including the means by which files are copied without a buffer.
type writer struct {
	caddyhttp.ResponseWriterWrapper
	flow
	series   *Series
	body     *meteredBody // nil: the request has none
	status   int          // final status, or 0 if there is none yet
	written  int64        // bytes of the body
	asked    int          // bytes of the request's header
	lane     uint32       // which chooses the stripe of requests that use this writer
	sampled  bool         // the fields are measured
	bodiless bool         // what is written of a body is not sent
	flushed  bool
	surfaced bool // what was not counted yet has been; from now on it is as it flows
	hijacked bool
}

// statusOf returns the status that has been sent, or else the given one.
func (w *writer) statusOf(unsent int) int {
	if w.status != 0 {
		return w.status
	}
	return unsent
}

// begin makes the writer that of a request.
func (w *writer) begin(s *Series, under http.ResponseWriter, r *http.Request) {
	w.ResponseWriter, w.series, w.stripe = under, s, s.stripe(w.lane)
	w.sampled = sampled(s.begin(w.lane))
	w.meter(r)
}

// meter begins to count bytes.
func (w *writer) meter(r *http.Request) {
	w.bodiless = r.Method == http.MethodHead
	w.meterBody(r)
	fields := w.stripe.fields.request.Load()
	if w.sampled || fields == 0 {
		fields = uint32(fieldsSize(r.Header))
		w.stripe.fields.request.Store(fields)
	}
	w.asked = requestSize(r) + int(fields)
}

// settle returns what has not been counted while it flowed. Unless the handler has
// returned, somebody else may be using the header.
func (w *writer) settle(status int, returned bool) (t Traffic) {
	if w.surfaced {
		return t
	}
	if status == 0 {
		status = http.StatusOK
	}
	t.IngressHeader, t.EgressBody = uint64(w.asked), uint64(w.written)
	if returned || w.status != 0 {
		t.EgressHeader = uint64(answerSize(status) + w.answerFields(status, returned))
	}
	return t
}

// answerFields returns about what the fields of the answer take.
func (w *writer) answerFields(status int, readable bool) int {
	fields := int(w.stripe.fields.answer.Load())
	if readable && (w.sampled || fields == 0) {
		header := w.Header()
		fields = fieldsSize(header) + addedSize(header, status, w.written, w.flushed)
		w.stripe.fields.answer.Store(uint32(fields))
	}
	return fields
}

// surface counts what has not been counted yet: nobody knows when the request ends.
func (w *writer) surface() {
	if w.surfaced {
		return
	}
	// Who hijacks a connection may write the header by hand; then it flows.
	t := w.settle(w.status, w.status != 0)
	w.surfaced = true
	w.flow.add(t)
}

// sent counts bytes of the body.
func (w *writer) sent(n int64) {
	if n <= 0 || w.bodiless {
		return
	}
	// Most answers are written in one piece, which is counted when they end.
	if w.written > 0 {
		w.surface()
	}
	w.written += n
	if w.surfaced {
		w.flow.add(Traffic{EgressBody: uint64(n)})
	}
}

func (w *writer) WriteHeader(status int) {
	switch {
	case w.status != 0:
	case status >= 200 || status == http.StatusSwitchingProtocols:
		w.status = status
		w.bodiless = w.bodiless || status == http.StatusNoContent || status == http.StatusNotModified
	case status == http.StatusContinue:
		w.flow.add(Traffic{EgressHeader: uint64(answerSize(status))})
	default:
		w.flow.add(Traffic{EgressHeader: uint64(answerSize(status) + fieldsSize(w.Header()))})
	}
	w.ResponseWriter.WriteHeader(status)
}

// piece is how much is passed on at once, so that it can be counted while it flows.
const piece = 256 << 10

func (w *writer) Write(p []byte) (written int, err error) {
	w.began()
	for {
		part := p[written:min(len(p), written+piece)]
		n, err := w.ResponseWriter.Write(part)
		w.sent(int64(n))
		written += n
		if err != nil || n < len(part) || written == len(p) {
			return written, err
		}
	}
}

func (w *writer) ReadFrom(r io.Reader) (read int64, err error) {
	w.began()
	// Servers see through one LimitedReader to a file, for sendfile, and not through two.
	limit, limited := r.(*io.LimitedReader)
	if limited {
		r = limit.R
	}
	part := io.LimitedReader{R: r}
	for {
		size := int64(piece)
		if limited {
			size = min(size, max(limit.N, 0))
		}
		part.N = size
		n, err := w.ResponseWriterWrapper.ReadFrom(&part)
		w.sent(n)
		read += n
		if limited {
			limit.N -= size - part.N
		}
		if err != nil || n < piece {
			return read, err
		}
	}
}

// FlushError sends what is buffered, which may be nothing but the header.
func (w *writer) FlushError() error {
	err := http.NewResponseController(w.ResponseWriter).Flush()
	if err == nil {
		w.began()
		w.flushed = true
		w.surface()
	}
	return err
}

// Hijack hands over the connection with a meter around it.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return conn, buf, err
	}
	w.hijacked = true
	w.surface()
	if w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	conn, buf = meterConn(conn, buf, w.flow)
	return conn, buf, nil
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
