package requestid

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/uuid"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/testkit"
)

// requestIDServe sends a request through a policy to a backend that sets its own ID. It
// returns the header received by the backend and the header received by the client.
func requestIDServe(t *testing.T, p *RequestID, r *http.Request) (backend, client http.Header) {
	t.Helper()
	w := httptest.NewRecorder()
	err := p.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		backend = r.Header.Clone()
		w.Header().Add(p.Header, "of-the-backend")
		w.WriteHeader(http.StatusOK)
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	return backend, w.Result().Header
}

func TestRequestID(t *testing.T) {
	const valid = "Root=1-67891233-abcdef012345678912345678"
	for _, tc := range []struct {
		what, config, header string
		sent                 []string
		kept                 bool
	}{
		{"none sent", `{}`, "X-Request-Id", nil, false},
		{"one sent", `{}`, "X-Request-Id", []string{valid}, false},
		{"none sent by a trusted proxy", `{"trust": true}`, "X-Request-Id", nil, false},
		{"one sent by a trusted proxy", `{"trust": true}`, "X-Request-Id", []string{valid}, true},
		{"one that is too long", `{"trust": true}`, "X-Request-Id", []string{strings.Repeat("a", 129)}, false},
		{"one that is not plain", `{"trust": true}`, "X-Request-Id", []string{`a"b`}, false},
		{"an empty one", `{"trust": true}`, "X-Request-Id", []string{""}, false},
		{"two", `{"trust": true}`, "X-Request-Id", []string{valid, valid}, false},
		{"another field", `{"trust": true, "header": "x-correlation-ID"}`, "X-Correlation-Id", []string{valid}, true},
	} {
		p := testkit.Load[RequestID](t, tc.config)
		r := testkit.Prepare(httptest.NewRequest("GET", "/", nil), nil)
		for _, id := range tc.sent {
			r.Header.Add(tc.header, id)
		}
		backend, client := requestIDServe(t, p, r)
		id := backend.Get(tc.header)
		if len(backend[tc.header]) != 1 || len(client[tc.header]) != 1 || client.Get(tc.header) != id {
			t.Errorf("%s: the backend got %q, the client %q", tc.what, backend[tc.header], client[tc.header])
		}
		if tc.kept && id != valid {
			t.Errorf("%s: got %q", tc.what, id)
		}
		if _, err := uuid.Parse(id); !tc.kept && err != nil {
			t.Errorf("%s: got %q", tc.what, id)
		}
		repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		if got, _ := repl.GetString("http.rgate.request_id"); got != id {
			t.Errorf("%s: the placeholder is %q, want %q", tc.what, got, id)
		}
	}
}

func TestTraceIsToldAndPassedOn(t *testing.T) {
	p := testkit.Load[RequestID](t, `{}`)
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, tc := range []struct {
		sent []string
		want string
	}{
		{nil, ""},
		{[]string{parent}, "0af7651916cd43dd8448eb211c80319c"},
		{[]string{"nonsense"}, ""},
		{[]string{parent, parent}, ""},
	} {
		r := testkit.Prepare(httptest.NewRequest("GET", "/", nil), nil)
		for _, value := range tc.sent {
			r.Header.Add("traceparent", value)
		}
		r.Header.Set("tracestate", "a=b")
		backend, _ := requestIDServe(t, p, r)
		if strings.Join(backend["Traceparent"], " ") != strings.Join(tc.sent, " ") || backend.Get("Tracestate") != "a=b" {
			t.Errorf("the backend got %v", backend)
		}
		repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		if got, _ := repl.GetString("http.rgate.trace_id"); got != tc.want {
			t.Errorf("%q: the placeholder is %q, want %q", tc.sent, got, tc.want)
		}
	}
}

// TestRequestHasOneID checks that with two policies, such as on a site and on a gateway
// in it, both use the ID of the outer policy.
func TestRequestHasOneID(t *testing.T) {
	outer, inner := testkit.Load[RequestID](t, `{}`), testkit.Load[RequestID](t, `{"header": "X-Inner"}`)
	w := httptest.NewRecorder()
	r := testkit.Prepare(httptest.NewRequest("GET", "/", nil), nil)
	_ = outer.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return inner.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
	}))
	if id := w.Header().Get("X-Request-Id"); id == "" || w.Header().Get("X-Inner") != id || r.Header.Get("X-Inner") != id {
		t.Errorf("the response has %v, the request %v", w.Header(), r.Header)
	}
}

func TestRequestIDTurnedOff(t *testing.T) {
	p := testkit.Load[RequestID](t, `{"disabled": true}`)
	backend, client := requestIDServe(t, p, testkit.Prepare(httptest.NewRequest("GET", "/", nil), nil, "X-Request-ID", "mine"))
	if backend.Get("X-Request-ID") != "mine" || client.Get("X-Request-ID") != "of-the-backend" {
		t.Errorf("the backend got %v, the client %v", backend, client)
	}
}

func TestRequestIDInACaddyfile(t *testing.T) {
	testkit.CheckDirectives[RequestID](t, options.Unmarshal, [][2]string{
		{"rgate_request_id", `{}`},
		{"rgate_request_id off", `{"disabled":true}`},
		{"rgate_request_id {\n header X-Correlation-ID\n trust\n}", `{"header":"X-Correlation-ID","trust":true}`},
		{"rgate_request_id {\n header \"X ID\"\n}", `invalid header field name "X ID": use a name such as X-Request-ID`},
		{"rgate_request_id {\n header authorization\n}", "header field authorization is reserved: use a name such as X-Request-ID"},
		{"rgate_request_id {\n header X-User-ID\n}", "header field X-User-ID is reserved: use a name such as X-Request-ID"},
		{"rgate_request_id {\n header X-Consumer-Tier\n}", "header field X-Consumer-Tier is reserved: use a name such as X-Request-ID"},
		{"rgate_request_id {\n header X_ID\n}", `invalid header field name "X_ID": use a name such as X-Request-ID`},
		{"rgate_request_id {\n header content-length\n}", `header field content-length is reserved: use a name such as X-Request-ID`},
	})
}
