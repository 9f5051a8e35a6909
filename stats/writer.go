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

// statusClientClosedRequest is the recorded status code if the client disconnects before
// the response begins.
const statusClientClosedRequest = 499

// Serve calls the next handler and records its response exactly once. A panic is recorded
// and propagated. details provides fields for the request log, which reads them after the
// handler has returned. It may be nil.
//
// If the handler fails before the response begins, the status code is taken from its
// caddyhttp.HandlerError, or is 500. If the handler aborts the connection
// (http.ErrAbortHandler), the status code is 499 if the client has disconnected, else
// 502.
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
			// HTTP/2 uses extended CONNECT (RFC 8441) instead of a protocol switch. Its
			// duration is not a latency.
			status = http.StatusSwitchingProtocols
		}
		traffic := ww.remaining(status, returned)
		now := s.rec.now()
		s.end(ww.shardID, now, status, now-start, traffic)
		if ww.account != nil {
			ww.account.add(traffic) // the series is counted before the consumer
		}
		if log != nil {
			s.logResponse(log, id, arrived, ww, r, details, status, now-start)
		}

		// A hijacked connection, or a goroutine after a panic, can still use the writer.
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

// sync.Pool caches items per processor, so processors rarely share the shard of a writer.
var (
	writers = sync.Pool{New: func() any { return &writer{shardID: created.Add(1)} }}
	created atomic.Uint32
)

// writer records the status code and the size of a response. It supports sendfile.
type writer struct {
	caddyhttp.ResponseWriterWrapper
	flow
	series   *Series
	body     *meteredBody // nil if the request has no body
	status   int          // final status code; 0 if not sent yet
	written  int64        // bytes of the body written
	asked    int          // bytes of the request header
	shardID  uint32       // selects the shard
	sampled  bool         // whether the header fields are measured
	bodiless bool         // whether writes to the body are discarded
	flushed  bool
	surfaced bool // whether bytes are counted during the transfer
	hijacked bool
}

// statusOf returns the status code if it has been sent, and unsent otherwise.
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

// remaining returns the traffic that has not been counted yet. It does not read the
// header if returned is false, because the handler may still be using it.
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

// responseFields returns the estimated size of the response header fields.
func (w *writer) responseFields(status int, readable bool) int {
	fields := int(w.shard.fields.response.Load())
	if readable && (w.sampled || fields == 0) {
		header := w.Header()
		fields = fieldsSize(header) + addedSize(header, status, w.written, w.flushed)
		w.shard.fields.response.Store(uint32(fields))
	}
	return fields
}

// countNow counts all bytes so far. It is called if the request may take long.
func (w *writer) countNow() {
	if w.surfaced {
		return
	}
	// After a hijack, the handler may write the header to the connection, where it is
	// counted.
	t := w.remaining(w.status, w.status != 0)
	w.surfaced = true
	w.flow.add(t)
}

// sent counts bytes of the response body.
func (w *writer) sent(n int64) {
	if n <= 0 || w.bodiless {
		return
	}
	// Most responses are sent in one write and are counted when they end.
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

// piece is the size of the chunks in which a body is copied, so that it is counted during
// the transfer.
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
	// For sendfile, servers unwrap only one LimitedReader around a file.
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

// FlushError flushes buffered data, which may be only the header.
func (w *writer) FlushError() error {
	err := http.NewResponseController(w.ResponseWriter).Flush()
	if err == nil {
		w.began()
		w.flushed = true
		w.countNow()
	}
	return err
}

// Hijack returns the connection wrapped in a meter.
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
