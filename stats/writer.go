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

// statusClientClosedRequest is the recorded status of a request whose client left
// before the response began.
const statusClientClosedRequest = 499

// Serve calls the next handler and records its response, exactly once. A panic is
// recorded and continues. The details are for the request log, which reads them once
// the handler has returned; they may be nil.
//
// If the handler fails before the response begins, the status is that of its
// caddyhttp.HandlerError, or 500. If it aborts the connection
// (http.ErrAbortHandler), it is 499 if the client has left, or 502.
func (s *Series) Serve(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, details LogDetails) (err error) {
	log := s.rec.log.Load()
	var start time.Duration
	var id uint64
	var arrived time.Time
	if log == nil {
		start = s.rec.now()
	} else {
		id, arrived = s.logRequest(log, r)
		start = arrived.Sub(s.rec.began)
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
			// HTTP/2 has no protocol switch but an extended CONNECT (RFC 8441): a WebSocket,
			// whose duration is not a latency.
			status = http.StatusSwitchingProtocols
		}
		traffic := ww.remaining(status, returned)
		now := s.rec.now()
		s.end(ww.shardID, now, status, now-start, traffic)
		if ww.account != nil {
			ww.account.add(traffic) // the series' counts come before a consumer's
		}
		if log != nil {
			s.logResponse(log, id, arrived, ww, r, details, status, now-start)
		}

		// A hijacked connection, or a goroutine that outlives a panic, may still
		// hold the writer.
		if returned && !ww.hijacked {
			*ww = writer{shardID: ww.shardID}
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

// A pool keeps its items by processor, and so processors rarely share the shard of a
// writer.
var (
	writers = sync.Pool{New: func() any { return &writer{shardID: created.Add(1)} }}
	created atomic.Uint32
)

// writer records the status and the size of a response. It supports the copying of
// files without a buffer.
type writer struct {
	caddyhttp.ResponseWriterWrapper
	flow
	series   *Series
	body     *meteredBody // nil: the request has no body
	status   int          // final status, or 0 if there is none yet
	written  int64        // bytes of the body
	asked    int          // bytes of the request's header
	shardID  uint32       // selects the shard of this writer's requests
	sampled  bool         // the fields are measured
	bodiless bool         // a body that is written is not sent
	flushed  bool
	surfaced bool // everything so far has been counted; bytes are now counted as they flow
	hijacked bool
}

// statusOf returns the status that has been sent, or else unsent.
func (w *writer) statusOf(unsent int) int {
	if w.status != 0 {
		return w.status
	}
	return unsent
}

// begin prepares the writer for a request.
func (w *writer) begin(s *Series, under http.ResponseWriter, r *http.Request) {
	w.ResponseWriter, w.series, w.shard = under, s, s.shard(w.shardID)
	w.sampled = sampled(s.begin(w.shardID))
	w.meter(r)
}

// meter starts counting bytes.
func (w *writer) meter(r *http.Request) {
	w.bodiless = r.Method == http.MethodHead
	w.meterBody(r)
	fields := w.shard.fields.request.Load()
	if w.sampled || fields == 0 {
		fields = uint32(fieldsSize(r.Header))
		w.shard.fields.request.Store(fields)
	}
	w.asked = requestSize(r) + int(fields)
}

// remaining returns the traffic that has not been counted yet. Unless the handler has
// returned, the header may be in use.
func (w *writer) remaining(status int, returned bool) (t Traffic) {
	if w.surfaced {
		return t
	}
	if status == 0 {
		status = http.StatusOK
	}
	t.IngressHeader, t.EgressBody = uint64(w.asked), uint64(w.written)
	if returned || w.status != 0 {
		t.EgressHeader = uint64(responseSize(status) + w.responseFields(status, returned))
	}
	return t
}

// responseFields returns the estimated size of the response's fields.
func (w *writer) responseFields(status int, readable bool) int {
	fields := int(w.shard.fields.response.Load())
	if readable && (w.sampled || fields == 0) {
		header := w.Header()
		fields = fieldsSize(header) + addedSize(header, status, w.written, w.flushed)
		w.shard.fields.response.Store(uint32(fields))
	}
	return fields
}

// countNow counts everything so far: the request may not end soon.
func (w *writer) countNow() {
	if w.surfaced {
		return
	}
	// After a hijack, the header may be written to the connection, and is counted there.
	t := w.remaining(w.status, w.status != 0)
	w.surfaced = true
	w.flow.add(t)
}

// sent counts bytes of the body.
func (w *writer) sent(n int64) {
	if n <= 0 || w.bodiless {
		return
	}
	// Most responses are written at once, and are counted when they end.
	if w.written > 0 {
		w.countNow()
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
		w.flow.add(Traffic{EgressHeader: uint64(responseSize(status))})
	default:
		w.flow.add(Traffic{EgressHeader: uint64(responseSize(status) + fieldsSize(w.Header()))})
	}
	w.ResponseWriter.WriteHeader(status)
}

// piece is the size of the parts in which a body is passed on, to count it as it flows.
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
	// Servers unwrap one LimitedReader around a file, for sendfile, and not two.
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

// FlushError sends what is buffered, which may be only the header.
func (w *writer) FlushError() error {
	err := http.NewResponseController(w.ResponseWriter).Flush()
	if err == nil {
		w.began()
		w.flushed = true
		w.countNow()
	}
	return err
}

// Hijack returns the connection with a meter around it.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return conn, buf, err
	}
	w.hijacked = true
	w.countNow()
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
