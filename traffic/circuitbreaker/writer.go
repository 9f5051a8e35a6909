package circuitbreaker

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/httpx"
)

// serve calls the next handler and records the outcome when the response header arrives.
// A probe ends then, even if the response is a stream. A panic is recorded as unknown and
// propagated.
func (p *CircuitBreaker) serve(c *circuit, ticket uint64, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) (err error) {
	ww := circuitWriters.Get().(*circuitWriter)
	ww.ResponseWriter, ww.policy, ww.circuit, ww.ticket = w, p, c, ticket
	httpx.WatchBody(r)
	returned := false
	defer func() {
		switch {
		case ww.decided:
		case returned:
			ww.decide(p.judge(r, http.StatusOK, err)) // the status is 200 if no header was written
		default:
			ww.decide(unknown)
		}
		// After Hijack or a panic, another goroutine may use the writer.
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

// circuitWriter records the status of a response and forwards the response.
type circuitWriter struct {
	caddyhttp.ResponseWriterWrapper
	policy   *CircuitBreaker
	circuit  *circuit
	ticket   uint64
	decided  bool
	hijacked bool
}

func (w *circuitWriter) decide(how outcome) {
	if !w.decided {
		w.decided = true
		w.policy.report(w.circuit, "", w.circuit.whole.end(w.ticket, how))
	}
}

func (w *circuitWriter) WriteHeader(status int) {
	if !w.decided && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.decide(w.policy.judge(nil, status, nil))
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *circuitWriter) Write(p []byte) (int, error) {
	w.decide(succeeded) // the status is 200 if no header was written
	return w.ResponseWriter.Write(p)
}

func (w *circuitWriter) ReadFrom(r io.Reader) (int64, error) {
	w.decide(succeeded)
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError sends the header if necessary and flushes the response.
func (w *circuitWriter) FlushError() error {
	err := http.NewResponseController(w.ResponseWriter).Flush()
	if err == nil {
		w.decide(succeeded)
	}
	return err
}

// Hijack implements http.Hijacker.
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
