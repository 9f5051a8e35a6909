package integration

import (
	"net/http"
	"strings"
	"testing"
)

// by returns the name of the fallback that produced the response.
func (a response) by() string { return a.header.Get("X-Gateway-Fallback") }

func TestFallbackWhenBackendsAreKilled(t *testing.T) {
	t.Parallel()
	payment := startContainer(t, spec{labels: map[string]string{"role": "payment"}, env: []string{"SERVICE=payment"}})
	spare := startContainer(t, spec{labels: map[string]string{"role": "spare"}, env: []string{"SERVICE=spare"}})
	g := startGateway(t, `
routes:
  - {path_prefix: /pay, backend: payment}
  - {path_prefix: /bare, backend: bare, strip_prefix: true}
backends:
  - name: payment
    match_labels: {app_name: $APP, role: payment}
    fallback: {cached: 10m, backend: spare, response: {status_code: 503, body: "later"}}
  - name: bare
    match_labels: {app_name: $APP, role: payment}
    fallback: true
  - name: spare
    match_labels: {app_name: $APP, role: spare}
  - name: bare-fallback
    match_labels: {app_name: $APP, role: spare}
`)
	g.await(t, "payment", 1)
	g.await(t, "spare", 1)
	first := g.get(t, "/pay/kept?a=b")
	if first.echo(t).Service != "payment" || first.by() != "" {
		t.Errorf("the backend that is up is not asked: %+v", first)
	}
	g.ask(t, "GET", "/pay/private", "", "Authorization", "alice")

	payment.kill(t)
	g.await(t, "payment", 0)
	kept := g.get(t, "/pay/kept?a=b")
	if kept.body != first.body || kept.by() != "cached" || kept.header.Get("Cache-Status") != "rgate-fallback; fwd=stale" || kept.header.Get("Age") == "" {
		t.Errorf("the kept response is %+v", kept)
	}
	if part := g.ask(t, "GET", "/pay/kept?a=b", "", "Range", "bytes=1-3"); part.status != 206 || part.body != first.body[1:4] || part.by() != "cached" {
		t.Errorf("a part of it is %+v", part)
	}
	same := g.ask(t, "GET", "/pay/kept?a=b", "", "If-Modified-Since", kept.header.Get("Date"))
	if same.status != 304 || same.body != "" || same.by() != "cached" || same.header.Get("Content-Type") != "" {
		t.Errorf("to a client that has it: %+v", same)
	}
	for _, tc := range []struct {
		method, target, body string
		headers              []string
	}{
		{"GET", "/pay/new", "", nil},
		{"GET", "/pay/private", "", []string{"Authorization", "bob"}},
		{"POST", "/pay/kept?a=b", "a body", nil}, // no stored response
	} {
		got := g.ask(t, tc.method, tc.target, tc.body, tc.headers...)
		if e := got.echo(t); e.Service != "spare" || got.by() != "spare" || e.RequestURI != tc.target || e.BodyBytes != int64(len(tc.body)) ||
			e.Headers.Get("X-Gateway-Service") != "spare" {
			t.Errorf("%s %s: got %+v by %q", tc.method, tc.target, e, got.by())
		}
	}
	// The fallback backend may be any backend of the gateway, and it receives the same
	// request.
	if got := g.get(t, "/bare/bare/x"); got.by() != "bare-fallback" || got.echo(t).RequestURI != "/bare/x" {
		t.Errorf("by name: got %q by %q", got.body, got.by())
	}

	spare.kill(t)
	g.await(t, "spare", 0)
	if got := g.get(t, "/pay/kept?a=b"); got.by() != "cached" {
		t.Errorf("the kept response is gone: %+v", got)
	}
	if got := g.get(t, "/pay/new"); got.status != 503 || got.body != "later" || got.by() != "response" || got.header.Get("Retry-After") != "1" {
		t.Errorf("the fixed response is %+v", got)
	}
	if got := g.get(t, "/bare/x"); got.by() != "" {
		t.Errorf("got %q by %q, want no fallback", got.body, got.by())
	} else {
		wantDown(t, "without anything left", got)
	}
	for by, want := range map[string]float64{"cached": 4, "spare": 3, "response": 1} {
		if got := g.metric(t, "rgate_fallback_requests_total", "backend", "payment", "by", by); got != want {
			t.Errorf("%v are counted by %s, want %v", got, by, want)
		}
	}

	// Stored responses survive a reload.
	g.reload(t)
	if got := g.get(t, "/pay/kept?a=b"); got.by() != "cached" {
		t.Errorf("after a reload: %+v", got)
	}
	if strings.Contains(g.output.String(), "backend is not used by any route") {
		t.Error("a fallback backend is said to be of no use")
	}
}

func TestFallbackForTimeoutsAndStatuses(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{})
	g := startGateway(t, `
routes:
  - {path_prefix: /errors, backend: errors}
  - {path_prefix: /slow, backend: slow}
  - {path_prefix: /open, backend: open}
backends:
  - name: errors
    match_labels: {app_name: $APP}
    fallback: {cached: 10m, statuses: [5xx], response: {body: later}}
  - name: slow
    match_labels: {app_name: $APP}
    timeouts: {total: 200ms}
    fallback: {response: {body: '{"later": true}', status_code: 200, headers: {X-A: b}}}
  - name: open
    match_labels: {app_name: $APP}
    circuit_breaker: {failures: 1, recovery: 1h}
    fallback: spare
  - name: spare
    match_labels: {app_name: $APP}
`)
	g.await(t, "errors", 1)
	for _, tc := range []struct {
		method, target, by string
		status             int
	}{
		{"GET", "/errors?status=404", "", 404},
		{"GET", "/errors?status=500&bytes=3000000", "response", 503},
		{"POST", "/errors?status=503", "response", 503},
		{"GET", "/errors", "", 200},
		{"GET", "/slow", "", 200},
		{"GET", "/slow?delay=1m", "response", 200},
	} {
		got := g.ask(t, tc.method, tc.target, "")
		if got.status != tc.status || got.by() != tc.by {
			t.Errorf("%s %s: got %d by %q, want %d by %q", tc.method, tc.target, got.status, got.by(), tc.status, tc.by)
		}
		if strings.HasPrefix(tc.target, "/slow?") && (got.body != `{"later": true}` || got.header.Get("X-A") != "b" || got.header.Get("Content-Type") != "application/json") {
			t.Errorf("the fixed response is %+v", got)
		}
	}

	// An open circuit has not sent the request, so any method may be sent to the fallback
	// backend.
	before := web.counts(t)
	if got := g.ask(t, "POST", "/open?drop=1", "a body"); got.status != 503 || got.by() != "" {
		t.Errorf("a POST that was sent: got %d by %q", got.status, got.by())
	}
	if got := g.ask(t, "POST", "/open", "a body"); got.by() != "spare" || got.echo(t).BodyBytes != 6 {
		t.Errorf("a POST that was not sent: got %d by %q", got.status, got.by())
	}
	if got := web.counts(t); got.ByMethod["POST"]-before.ByMethod["POST"] != 2 {
		t.Errorf("the containers have had %d POST requests, want 2", got.ByMethod["POST"]-before.ByMethod["POST"])
	}
}

// Behind a fallback, each coalesced request that fails gets its own fallback response.
func TestFallbackAroundCoalescing(t *testing.T) {
	t.Parallel()
	b := newGated(t, func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) })
	g := startGateway(t, strings.ReplaceAll(`
routes: [{path_prefix: /, backend: web, coalesce: true}]
backends: [{name: web, dial: ["$DIAL"], retries: 0, fallback: {response: {body: later, status_code: 200}}}]
`, "$DIAL", b.Listener.Addr().String()))
	responses := make(chan response, 10)
	for range cap(responses) {
		request := g.request(t, "GET", "/", "")
		go func() {
			got, err := do(g.client, request)
			if err != nil {
				t.Error(err)
			}
			responses <- got
		}()
	}
	g.awaitInFlight(t, cap(responses))
	close(b.open)
	for range cap(responses) {
		if got := <-responses; got.status != 200 || got.body != "later" || got.by() != "response" {
			t.Errorf("got %+v", got)
		}
	}
	if n := b.reached.Load(); n != 1 {
		t.Errorf("the backend was asked %d times", n)
	}
}
