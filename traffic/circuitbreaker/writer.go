package circuitbreaker

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
)

// serve calls the next handler and tells the circuit, once, how the backend did: as
// soon as the header of its answer is known, so that a probe that goes on as a
// stream keeps nobody waiting. A panic gives the ticket back and goes on.
func (p *CircuitBreaker) serve(c *circuit, ticket uint64, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) (err error) {
	ww := circuitWriters.Get().(*circuitWriter)
	ww.ResponseWriter, ww.policy, ww.circuit, ww.ticket = w, p, c, ticket
	policy.WatchBody(r)
	returned := false
	defer func() {
		switch {
		case ww.decided:
		case returned:
			ww.decide(p.judge(r, http.StatusOK, err)) // 200, if there was no other status
		default:
			ww.decide(unknown)
		}
		// A hijacked connection, or a goroutine that outlives a panic, may still hold
		// the writer.
		if returned && !ww.hijacked {
			ww.ResponseWriter, ww.policy, ww.circuit, ww.decided = nil, nil, nil, false
			circuitWriters.Put(ww)
		}
	}()
	err = next.ServeHTTP(ww, r)
	returned = true
	return err
}

var circuitWriters = sync.Pool{New: func() any { return new(circuitWriter) }}

// circuitWriter tells a circuit of the status of an answer and passes everything on.
type circuitWriter struct {
	caddyhttp.ResponseWriterWrapper
	policy   *CircuitBreaker
	circuit  *circuit
	ticket   uint64
	decided  bool
	hijacked bool
}

func (w *circuitWriter) decide(how verdict) {
	if !w.decided {
		w.decided = true
		w.policy.tell(w.circuit, "", w.circuit.whole.end(w.ticket, how))
	}
}

func (w *circuitWriter) WriteHeader(status int) {
	if !w.decided && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.decide(w.policy.judge(nil, status, nil))
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *circuitWriter) Write(p []byte) (int, error) {
	w.decide(succeeded) // 200, if there was no other status
	return w.ResponseWriter.Write(p)
}

func (w *circuitWriter) ReadFrom(r io.Reader) (int64, error) {
	w.decide(succeeded)
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError sends what is buffered, which may be nothing but the header.
func (w *circuitWriter) FlushError() error {
	err := http.NewResponseController(w.ResponseWriter).Flush()
	if err == nil {
		w.decide(succeeded)
	}
	return err
}

// Hijack hands over the connection as it is.
func (w *circuitWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.hijacked = true
		w.decide(succeeded)
	}
	return conn, buf, err
}

// Interface guards
var (
	_ http.Hijacker = (*circuitWriter)(nil)
	_ io.ReaderFrom = (*circuitWriter)(nil)
)
