package circuitbreaker

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/policy/policytest"
)

// circuitSend sends a request and returns the status of the response or the error.
func circuitSend(t *testing.T, p *CircuitBreaker, state *policytest.RequestState, next caddyhttp.HandlerFunc) (status int, header http.Header) {
	t.Helper()
	r, w := policytest.Request(t.Context(), state, nil)
	err := p.ServeHTTP(w, r, next)
	var failure caddyhttp.HandlerError
	if errors.As(err, &failure) {
		return failure.StatusCode, w.Header()
	}
	return w.Code, w.Header()
}

func (p *CircuitBreaker) stateAt(place policy.RouteInfo) circuitState {
	state, _ := p.circuitAt(place).whole.current()
	return state
}

func TestWhatAFailureIs(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	overdue, cancelOverdue := context.WithTimeout(t.Context(), -1)
	defer cancelOverdue()
	broken := iotest.ErrReader(errors.New("unexpected EOF"))
	for name, tc := range map[string]struct {
		ctx      context.Context
		statuses []string
		body     io.Reader
		next     caddyhttp.HandlerFunc
		opens    bool
	}{
		"500":                       {next: policytest.RespondWith(500), opens: true},
		"599":                       {next: policytest.RespondWith(599), opens: true},
		"600":                       {next: policytest.RespondWith(600)},
		"404":                       {next: policytest.RespondWith(404)},
		"429":                       {next: policytest.RespondWith(429)},
		"499 of the proxy":          {next: policytest.RespondWith(499)},
		"listed":                    {next: policytest.RespondWith(503), statuses: []string{"502", "503"}, opens: true},
		"not listed":                {next: policytest.RespondWith(500), statuses: []string{"502", "503"}},
		"hints, then 500":           {next: func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(103); w.WriteHeader(500); return nil }, opens: true},
		"down, whatever is listed":  {next: policytest.FailWith(caddyhttp.Error(503, failure.Error{Err: io.EOF})), statuses: []string{"500"}, opens: true},
		"time-out":                  {next: policytest.FailWith(caddyhttp.Error(504, errors.New("timeout"))), opens: true},
		"nonsense":                  {next: policytest.FailWith(caddyhttp.Error(502, errors.New("malformed HTTP response"))), opens: true},
		"another error":             {next: policytest.FailWith(errors.New("oops")), opens: true},
		"too large":                 {next: policytest.FailWith(caddyhttp.Error(413, errors.New("too large")))},
		"no upstream":               {next: policytest.FailWith(caddyhttp.Error(503, failure.Error{Err: errors.New("no upstreams available")}))},
		"client left":               {ctx: canceled, next: policytest.FailWith(caddyhttp.Error(502, io.EOF))},
		"client left, 499":          {next: policytest.FailWith(caddyhttp.Error(499, context.Canceled))},
		"client left, 500 all same": {ctx: canceled, next: policytest.RespondWith(500), opens: true},
		"its time limit":            {ctx: overdue, next: policytest.FailWith(caddyhttp.Error(504, context.DeadlineExceeded)), opens: true},
		"client breaks off its upload": {body: broken, next: func(_ http.ResponseWriter, r *http.Request) error {
			_, err := io.ReadAll(r.Body)
			return caddyhttp.Error(502, err)
		}},
		"down in spite of an upload": {body: strings.NewReader("body"), next: func(_ http.ResponseWriter, r *http.Request) error {
			_, _ = io.ReadAll(r.Body)
			return caddyhttp.Error(502, io.EOF)
		}, opens: true},
		"nothing at all":     {next: func(http.ResponseWriter, *http.Request) error { return nil }},
		"body, then error":   {next: func(w http.ResponseWriter, _ *http.Request) error { _, _ = w.Write(nil); return io.EOF }},
		"header, then error": {next: func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(200); return io.EOF }},
	} {
		t.Run(name, func(t *testing.T) {
			p := testkit.Provision(t, &CircuitBreaker{Failures: 1, Statuses: tc.statuses})
			if tc.ctx == nil {
				tc.ctx = t.Context()
			}
			r, w := policytest.Request(tc.ctx, nil, tc.body)
			_ = p.ServeHTTP(w, r, tc.next)
			if opened := p.stateAt(policy.RouteInfo{}) == circuitOpen; opened != tc.opens {
				t.Errorf("it is open: %v, want %v", opened, tc.opens)
			}
		})
	}
}

func TestOpenBreakerRespondsAtOnce(t *testing.T) {
	p := testkit.Provision(t, &CircuitBreaker{Failures: 2, Recovery: caddy.Duration(90 * time.Second)})
	circuitSend(t, p, nil, policytest.RespondWith(500))
	circuitSend(t, p, nil, policytest.FailWith(caddyhttp.Error(503, io.EOF)))
	never := func(http.ResponseWriter, *http.Request) error {
		t.Error("the backend was asked")
		return nil
	}
	code, header := circuitSend(t, p, nil, never)
	if code != 503 || header.Get("Retry-After") != "90" {
		t.Errorf("got %d and Retry-After %q, want 503 and 90", code, header.Get("Retry-After"))
	}
	place := policy.RouteInfo{Gateway: t.Name(), Route: "/a", Backend: "b"}
	inside := &policytest.RequestState{At: place}
	for range 2 {
		circuitSend(t, p, inside, policytest.RespondWith(500))
	}
	r, w := policytest.Request(t.Context(), inside, nil)
	var failure failure.Error
	if err := p.ServeHTTP(w, r, caddyhttp.HandlerFunc(never)); !errors.As(err, &failure) || !errors.Is(err, errCircuitOpen) || w.Body.Len() > 0 {
		t.Errorf("in a gateway: got %v and %q, want a failure and nothing written", err, w.Body)
	}
	published := status.CircuitBreakers.All(status.Backend{Gateway: t.Name(), Name: "b"})
	if len(published) != 1 || !published[0].IsOpen() || published[0].RetryAfter < 80 {
		t.Errorf("published: %+v", published)
	}
	if p.stateAt(policy.RouteInfo{Gateway: t.Name(), Backend: "other"}) != circuitClosed {
		t.Error("another backend's is open, too")
	}
}

// openFor returns a policy whose open breaker has just passed its recovery time.
func openFor(t *testing.T, probes int) (*CircuitBreaker, *breaker) {
	t.Helper()
	p := testkit.Provision(t, &CircuitBreaker{Failures: 1, Probes: probes, Recovery: caddy.Duration(time.Hour)})
	circuitSend(t, p, nil, policytest.RespondWith(500))
	b := p.circuitAt(policy.RouteInfo{}).whole
	b.mu.Lock()
	b.until = 0
	b.mu.Unlock()
	return p, b
}

func TestStreamIsJudgedByItsHeader(t *testing.T) {
	for name, begin := range map[string]func(w http.ResponseWriter){
		"events":    func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
		"WebSocket": func(w http.ResponseWriter) { w.WriteHeader(http.StatusSwitchingProtocols) },
		"file":      func(w http.ResponseWriter) { _, _ = w.(io.ReaderFrom).ReadFrom(strings.NewReader("x")) },
	} {
		p, b := openFor(t, 1)
		circuitSend(t, p, nil, func(w http.ResponseWriter, r *http.Request) error {
			if state, _ := b.current(); state != circuitHalfOpen {
				t.Errorf("%s: before the header, it is %v", name, state)
			}
			begin(w)
			if state, _ := b.current(); state != circuitClosed {
				t.Errorf("%s: after the header, it is %v", name, state)
			}
			return io.EOF
		})
		if state, _ := b.current(); state != circuitClosed {
			t.Errorf("%s: in the end, it is %v", name, state)
		}
	}
}

func TestProbeThatSaysNothingGivesItsPermitBack(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	p, b := openFor(t, 1)
	for range 3 {
		func() {
			defer func() {
				if recover() != http.ErrAbortHandler {
					t.Error("the panic is lost")
				}
			}()
			circuitSend(t, p, nil, func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) })
		}()
		r, w := policytest.Request(canceled, nil, nil)
		_ = p.ServeHTTP(w, r, policytest.FailWith(caddyhttp.Error(499, context.Canceled)))
	}
	circuitSend(t, p, nil, policytest.RespondWith(200))
	if state, _ := b.current(); state != circuitClosed {
		t.Errorf("it is %v", state)
	}
}

func TestCircuitBreakerOptions(t *testing.T) {
	for text, want := range map[string]string{
		"":        "",
		"5 60s":   "",
		"5 60s x": "unexpected argument 'x'",
		"off":     "",
		"five":    "failures must be a whole number, not 'five'",
		"{\nratio 0.5\nwindow 5s\nminimum 10\nprobes 3\nstatuses 502 5xx\nper_container\nname a\n}": "",
		"{\nexpire 1m\nrecovery 10ms\n}": "",
		"-1":                             "invalid failures -1: must be 1 to 1000",
		"{\nfailures 5\nratio 0.5\n}":    "failures and ratio cannot be combined",
		"{\nratio 50\n}":                 "invalid ratio 50: must be above 0 and at most 1",
		"{\nratio -1\n}":                 "invalid ratio -1",
		"{\nratio 0.5\nexpire 1m\n}":     "expire and ratio cannot be combined: use window with ratio",
		"{\nwindow 1m\n}":                "window requires ratio",
		"{\nminimum 10\n}":               "minimum requires ratio",
		"{\nratio 0.5\nminimum -1\n}":    "invalid minimum -1: must be 1 to 1000000",
		"{\nprobes 101\n}":               "invalid probes 101: must be 1 to 100",
		"{\nrecovery 1ms\n}":             "invalid recovery 1ms: must be 10ms to 24h",
		"{\nstatuses 404\n}":             "invalid status 404: must be 500 to 599, because 4xx are client errors",
		"{\nstatuses 500 4xx\n}":         "invalid status 4xx",
		"{\nstatuses 600\n}":             `invalid status "600": must be 500 to 599, or the class 5xx`,
		"{\nstatuses error\n}":           `invalid status "error"`,
		"{\nrecover 60s\n}":              `unrecognized subdirective 'recover' (did you mean "recovery"?)`,
	} {
		policytest.WantOptions(t, new(CircuitBreaker), "rgate_circuit_breaker "+text, want)
	}
}

func BenchmarkCircuitBreaker(b *testing.B) {
	for name, options := range map[string]*CircuitBreaker{"whole": {}, "ratio": {Ratio: .5}, "per-container": {PerContainer: true}} {
		p := testkit.Provision(b, options)
		ex := &policytest.RequestState{At: policy.RouteInfo{Gateway: b.Name(), Route: "/", Backend: "b"}}
		r, _ := policytest.Request(b.Context(), ex, nil)
		r.Body = http.NoBody
		next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			if ex.Guarding != nil && ex.Guarding.Allows("a") && ex.Guarding.Begin("a") {
				ex.Guarding.End(200, nil)
			}
			w.WriteHeader(200)
			return nil
		})
		w := testkit.DiscardWriter{}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = p.ServeHTTP(w, r, next)
			}
		})
	}
}
