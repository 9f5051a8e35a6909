package fallback

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/policy/policytest"
	"github.com/rgate/rgate/traffic/circuitbreaker"
)

func fallbackPolicy(t testing.TB, f *Fallback) *Fallback {
	t.Helper()
	base, err := caddy.ProvisionContext(new(caddy.Config))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(base)
	t.Cleanup(cancel)
	if err := errors.Join(f.Provision(ctx), f.Validate()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Cleanup() })
	return f
}

// fallbackExchange is the request state of a gateway with a backend and other backends.
type fallbackExchange struct {
	place  policy.RouteInfo
	others map[string]caddyhttp.HandlerFunc
}

func (e *fallbackExchange) RouteInfo() policy.RouteInfo    { return e.place }
func (e *fallbackExchange) HasBackend(backend string) bool { return e.others[backend] != nil }
func (e *fallbackExchange) Forward(backend string, w http.ResponseWriter, r *http.Request) (bool, error) {
	return true, e.others[backend](w, r)
}

// fallbackRig is a policy with a backend whose responses the test sets.
type fallbackRig struct {
	*Fallback
	state   *fallbackExchange
	backend caddyhttp.HandlerFunc
}

// fallbackRigs numbers the rigs, so that they do not share stores.
var fallbackRigs atomic.Int64

func newFallbackRig(t testing.TB, f *Fallback) *fallbackRig {
	return &fallbackRig{Fallback: fallbackPolicy(t, f), backend: fallbackSays("first"), state: &fallbackExchange{
		place:  policy.RouteInfo{Gateway: fmt.Sprint(t.Name(), fallbackRigs.Add(1)), Route: "/", Backend: "first"},
		others: map[string]caddyhttp.HandlerFunc{"other": fallbackSays("other")},
	}}
}

// fallbackSays returns a backend that responds with a body, an optional status and header
// fields. The default status is 200.
func fallbackSays(body string, options ...any) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		status := http.StatusOK
		w.Header().Set("Content-Type", "text/x")
		for i := 0; i < len(options); i++ {
			switch option := options[i].(type) {
			case int:
				status = option
			case string:
				w.Header().Set(option, options[i+1].(string))
				i++
			}
		}
		got, _ := io.ReadAll(r.Body)
		w.WriteHeader(status)
		_, err := io.WriteString(w, body+string(got))
		return err
	}
}

// fallbackFails returns a backend that does not respond.
func fallbackFails(status int, cause error) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Retry-After", "9")
		w.Header().Add("Via", "first")
		return caddyhttp.Error(status, failure.Error{Err: cause})
	}
}

var (
	errFallbackDown  = errors.New("connection lost")
	fallbackDown     = fallbackFails(http.StatusServiceUnavailable, errFallbackDown)
	fallbackNotThere = fallbackFails(http.StatusServiceUnavailable, fallbackRefused{})
)

// fallbackRefused is a dial error with a constant message.
type fallbackRefused struct{ reverseproxy.DialError }

func (fallbackRefused) Error() string   { return "connection refused" }
func (e fallbackRefused) Unwrap() error { return e.DialError }

// ask sends a request. It returns the response in one line: status, body and fallback, or
// the error.
func (rig *fallbackRig) ask(t testing.TB, method, target, body string, headers ...string) (string, http.Header) {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, "http://example.com"+target, reader)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, new(caddyhttp.Server))
	if rig.state != nil {
		caddyhttp.SetVar(r.Context(), policy.RequestStateVar, rig.state)
	}
	w.Header().Set("X-Outer", "yes")
	err := rig.ServeHTTP(w, r, rig.backend)
	text := fmt.Sprintf("%d %s", w.Code, w.Body)
	if err != nil {
		text = "error " + err.Error()
		var failed caddyhttp.HandlerError
		if errors.As(err, &failed) {
			text = fmt.Sprintf("error %d", failed.StatusCode)
		}
	}
	if by := w.Header().Get(fallbackHeader); by != "" {
		text += " by " + by
	}
	if w.Header().Get("X-Outer") != "yes" {
		t.Error("a header of a handler further out is gone")
	}
	return strings.ReplaceAll(text, "\n", ""), w.Header()
}

func (rig *fallbackRig) expect(t testing.TB, want, method, target, body string, headers ...string) http.Header {
	t.Helper()
	got, header := rig.ask(t, method, target, body, headers...)
	if got != want {
		t.Errorf("%s %s %v: got %q, want %q", method, target, headers, got, want)
	}
	return header
}

func TestFallbackOrder(t *testing.T) {
	const down = "error 503"
	static := &Response{Body: "later", StatusCode: 503}
	for _, tc := range []struct {
		what   string
		policy *Fallback
		setUp  func(*fallbackRig)
		want   string
	}{
		{"nothing", &Fallback{}, nil, down},
		{"kept", &Fallback{Cached: caddy.Duration(time.Minute), Backend: "other", Response: static}, nil, "200 first by cached"},
		{"other backend", &Fallback{Backend: "other", Response: static}, nil, "200 other by other"},
		{"by its name", &Fallback{}, func(rig *fallbackRig) { rig.state.others["first-fallback"] = fallbackSays("by name") }, "200 by name by first-fallback"},
		{"fixed", &Fallback{Response: static}, nil, "503 later by response"},
		{"other backend is down", &Fallback{Backend: "other", Response: static}, func(rig *fallbackRig) { rig.state.others["other"] = fallbackDown }, "503 later by response"},
		{"other backend is down, and that is all", &Fallback{Backend: "other"}, func(rig *fallbackRig) { rig.state.others["other"] = fallbackDown }, down},
		{"other backend refuses", &Fallback{Backend: "other", Response: static}, func(rig *fallbackRig) { rig.state.others["other"] = fallbackSays("no", 403) }, "403 no by other"},
		{"no such backend", &Fallback{Backend: "missing", Response: static}, nil, "503 later by response"},
		{"itself", &Fallback{Backend: "first"}, func(rig *fallbackRig) { rig.state.others["first"] = fallbackSays("again") }, down},
		{"outside of a gateway", &Fallback{Backend: "other", Response: static}, func(rig *fallbackRig) { rig.state = nil }, "503 later by response"},
		{"outside of a gateway, and nothing", &Fallback{}, func(rig *fallbackRig) { rig.state = nil }, "503 Service Unavailable"},
		{"turned off", &Fallback{Base: policy.Base{Disabled: true}, Response: static}, nil, down},
	} {
		t.Run(tc.what, func(t *testing.T) {
			rig := newFallbackRig(t, tc.policy)
			if tc.setUp != nil {
				tc.setUp(rig)
			}
			rig.expect(t, "200 first", "GET", "/a", "")
			rig.backend = fallbackDown
			header := rig.expect(t, tc.want, "GET", "/a", "")
			byAnother := !strings.HasPrefix(tc.want, "error") && !strings.HasSuffix(tc.want, "Unavailable")
			if via := header.Get("Via"); byAnother == (via == "first") {
				t.Errorf("Via is %q", via)
			}
			if got, want := header.Get("Retry-After"), strings.HasPrefix(tc.want, "503") || tc.want == down; (got == "9") != want {
				t.Errorf("Retry-After is %q", got)
			}
		})
	}
}

func TestFallbackTriggers(t *testing.T) {
	for _, tc := range []struct {
		what     string
		statuses []string
		backend  caddyhttp.HandlerFunc
		want     string
	}{
		{"time-out", nil, fallbackFails(504, errFallbackDown), "503 later by response"},
		{"nonsense", nil, fallbackFails(502, errFallbackDown), "503 later by response"},
		{"Caddy's proxy", nil, func(http.ResponseWriter, *http.Request) error { return caddyhttp.Error(502, errFallbackDown) }, "503 later by response"},
		{"a client that left", nil, func(http.ResponseWriter, *http.Request) error { return caddyhttp.Error(499, errFallbackDown) }, "error 499"},
		{"a refusal", nil, func(http.ResponseWriter, *http.Request) error { return caddyhttp.Error(403, errFallbackDown) }, "error 403"},
		{"another error", nil, func(http.ResponseWriter, *http.Request) error { return errFallbackDown }, "error connection lost"},
		{"a response with 500", nil, fallbackSays("oops", 500), "500 oops"},
		{"a listed status", []string{"500"}, fallbackSays("oops", 500), "503 later by response"},
		{"a class of them", []string{"5xx"}, fallbackSays("oops", 507), "503 later by response"},
		{"another one than listed", []string{"503"}, fallbackSays("oops", 500), "500 oops"},
		{"a good one", []string{"5xx"}, fallbackSays("fine", 404), "404 fine"},
		{"nothing at all", []string{"5xx"}, func(http.ResponseWriter, *http.Request) error { return nil }, "200 "},
		{"a listed status that breaks off", []string{"5xx"}, func(w http.ResponseWriter, r *http.Request) error {
			_ = fallbackSays("oops", 500)(w, r)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, "503 later by response"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			rig := newFallbackRig(t, &Fallback{Response: &Response{Body: "later"}, Statuses: tc.statuses})
			rig.backend = tc.backend
			rig.expect(t, tc.want, "GET", "/", "")
		})
	}
}

// Without a fallback, the response is unchanged.
func TestFallbackKeepsAnErrorWithoutABetterResponse(t *testing.T) {
	rig := newFallbackRig(t, &Fallback{Cached: caddy.Duration(time.Minute), Statuses: []string{"5xx"}})
	rig.backend = fallbackSays("oops", 500, "X-A", "b")
	if header := rig.expect(t, "500 oops", "GET", "/", ""); header.Get("X-A") != "b" {
		t.Errorf("the header is %v", header)
	}
	// Fallback backends are resolved at run time.
	rig.state.others["first-fallback"] = fallbackDown
	rig.expect(t, "error 500", "GET", "/", "")
}

func TestFallbackNoRequestIsDoneTwice(t *testing.T) {
	read := func(next caddyhttp.HandlerFunc) caddyhttp.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) error {
			_, _ = r.Body.Read(make([]byte, 1))
			return next(w, r)
		}
	}
	closed := func(next caddyhttp.HandlerFunc) caddyhttp.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) error {
			_ = r.Body.Close() // like http.Transport
			return next(w, r)
		}
	}
	const other, down = " by other", "error 503"
	for _, tc := range []struct {
		what, method, body string
		backend            caddyhttp.HandlerFunc
		want               string
	}{
		{"GET", "GET", "", fallbackDown, "200 other" + other},
		{"OPTIONS", "OPTIONS", "", fallbackDown, "200 other" + other},
		{"POST", "POST", "", fallbackDown, down},
		{"DELETE", "DELETE", "", fallbackDown, down},
		{"POST that was never sent", "POST", "", fallbackNotThere, "200 other" + other},
		{"POST with a body that was never sent", "POST", "+body", fallbackNotThere, "200 other+body" + other},
		{"POST whose body was closed", "POST", "+body", closed(fallbackNotThere), "200 other+body" + other},
		{"POST without upstreams", "POST", "+body", fallbackFails(503, errors.New("no upstreams available")), "200 other+body" + other},
		{"POST whose body was read", "POST", "+body", read(fallbackNotThere), down},
		{"GET whose body was read", "GET", "+body", read(fallbackDown), down},
		{"GET whose body was not read", "GET", "+body", fallbackDown, "200 other+body" + other},
		{"POST that a policy refused", "POST", "+body", func(w http.ResponseWriter, r *http.Request) error {
			var base policy.Base
			return base.RefuseWithFallback(w, r, 503, errors.New("open")) // records the rejecting policy
		}, down},
	} {
		t.Run(tc.what, func(t *testing.T) {
			rig := newFallbackRig(t, &Fallback{Backend: "other"})
			rig.backend = tc.backend
			rig.expect(t, tc.want, tc.method, "/", tc.body)
		})
	}
	rig := newFallbackRig(t, &Fallback{Backend: "other", Statuses: []string{"5xx"}})
	rig.backend = fallbackSays("oops", 500)
	rig.expect(t, "200 other by other", "GET", "/", "")
	rig.expect(t, "500 oops+body", "POST", "/", "+body")
}

// The circuit breaker reports that nothing was sent.
func TestFallbackAfterAnOpenCircuit(t *testing.T) {
	rig := newFallbackRig(t, &Fallback{Backend: "other"})
	breaker := &circuitbreaker.CircuitBreaker{Failures: 1}
	base, _ := caddy.ProvisionContext(new(caddy.Config))
	ctx, cancel := caddy.NewContext(base)
	t.Cleanup(cancel)
	if err := breaker.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = breaker.Cleanup() })
	rig.backend = func(w http.ResponseWriter, r *http.Request) error { return breaker.ServeHTTP(w, r, fallbackDown) }
	rig.expect(t, "error 503", "POST", "/", "+body") // the request was sent
	rig.expect(t, "200 other+body by other", "POST", "/", "+body")
	// The fallback also responds outside of a gateway.
	rig = newFallbackRig(t, &Fallback{Response: &Response{Body: "later"}})
	rig.state = nil
	rig.backend = func(w http.ResponseWriter, r *http.Request) error { return breaker.ServeHTTP(w, r, fallbackDown) }
	for range 3 {
		rig.expect(t, "503 later by response", "GET", "/", "")
	}
}

// A fallback backend has no second fallback backend, but may have other fallbacks.
func TestFallbackOfAFallback(t *testing.T) {
	for _, tc := range []struct {
		inner *Fallback
		want  string
	}{
		{&Fallback{Backend: "first"}, "error 503"},
		{&Fallback{Backend: "third"}, "error 503"},
		{&Fallback{Response: &Response{Body: "inner"}}, "503 inner by response"},
	} {
		rig := newFallbackRig(t, &Fallback{Backend: "other"})
		inner := fallbackPolicy(t, tc.inner)
		calls := 0
		rig.state.others = map[string]caddyhttp.HandlerFunc{
			"third": fallbackSays("third"),
			"other": func(w http.ResponseWriter, r *http.Request) error {
				if calls++; calls > 1 {
					t.Fatal("it goes round in circles")
				}
				return inner.ServeHTTP(w, r, fallbackDown)
			},
		}
		rig.state.others["first"] = rig.state.others["other"]
		rig.backend = fallbackDown
		rig.expect(t, tc.want, "GET", "/", "")
	}
}

func TestFallbackResponse(t *testing.T) {
	for _, tc := range []struct {
		response Response
		want     string
		header   http.Header
	}{
		{Response{}, "503  by response", http.Header{"Content-Length": {"0"}, "Retry-After": {"9"}}},
		{Response{Body: "later"}, "503 later by response", http.Header{"Content-Type": {"text/plain; charset=utf-8"}}},
		{Response{Body: `{"a":1}`, StatusCode: 200}, `200 {"a":1} by response`, http.Header{"Content-Type": {"application/json"}}},
		{Response{Body: "<p>", StatusCode: 500, Headers: map[string]string{"content-type": "text/html", "X-A": "b"}}, "500 <p> by response",
			http.Header{"Content-Type": {"text/html"}, "X-A": {"b"}}},
		{Response{StatusCode: 204}, "204  by response", http.Header{"Content-Length": nil}},
		{Response{Headers: map[string]string{"Retry-After": "60"}}, "503  by response", http.Header{"Retry-After": {"60"}}},
	} {
		rig := newFallbackRig(t, &Fallback{Response: &tc.response})
		rig.backend = fallbackDown
		header := rig.expect(t, tc.want, "GET", "/", "")
		for name, values := range tc.header {
			if fmt.Sprint(header[name]) != fmt.Sprint(values) {
				t.Errorf("%+v: %s is %q, want %q", tc.response, name, header[name], values)
			}
		}
		rig.expect(t, strings.Fields(tc.want)[0]+"  by response", "HEAD", "/", "")
	}
}

func TestFallbackOptions(t *testing.T) {
	for text, want := range map[string]string{
		"rgate_fallback":       `{}`,
		"rgate_fallback other": `{"backend":"other"}`,
		"rgate_fallback off":   `{"disabled":true}`,
		"rgate_fallback {\n cached 10m\n max_bytes 1MiB\n max_body 1KiB\n backend b\n statuses 500 503\n response later 503\n}": `{"cached":600000000000,"max_bytes":1048576,"max_body":1024,"backend":"b","response":{"body":"later","status_code":503},"statuses":["500","503"]}`,
		"rgate_fallback {\n response {\n body b\n headers X-A b\n }\n}":                                                         `{"response":{"body":"b","headers":{"X-A":"b"}}}`,
		"rgate_fallback {\n cached -1s\n}":                                "! invalid cached -1s: must not be negative",
		"rgate_fallback {\n max_bytes 1MiB\n}":                            "! max_bytes requires cached",
		"rgate_fallback {\n max_body 1MiB\n}":                             "! max_body requires cached",
		"rgate_fallback {\n cached 1m\n max_bytes 1KB\n max_body 2KB\n}":  "! invalid max_body 2000: must be at most 1000, the value of max_bytes",
		"rgate_fallback {http.request.header.X}":                          "! invalid backend \"{http.request.header.X}\"",
		"rgate_fallback {\n statuses 404\n}":                              "! invalid status 404",
		"rgate_fallback {\n response a 99\n}":                             "! invalid status_code 99",
		"rgate_fallback {\n response a 204\n}":                            "! a response with status 204 has no body",
		"rgate_fallback {\n response {\n headers \"X A\" b\n }\n}":        "! invalid header field name \"X A\"",
		"rgate_fallback {\n response {\n headers X-A \"b\nc\"\n }\n}":     "! invalid value of X-A: must be one line",
		"rgate_fallback {\n response {\n headers content-length 5\n }\n}": "! content-length is set by the gateway",
		"rgate_fallback {\n reponse a\n}":                                 "! unrecognized subdirective 'reponse' (did you mean \"response\"?)",
	} {
		if got := policytest.Options(t, new(Fallback), text); got != want && (!strings.HasPrefix(want, "!") || !strings.HasPrefix(got, want)) {
			t.Errorf("%s:\ngot  %s\nwant %s", text, got, want)
		}
	}
}
