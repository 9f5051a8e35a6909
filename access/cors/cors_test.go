package cors

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	rscors "github.com/rs/cors"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/testkit"
)

// corsServe sends a request through a policy to a backend that responds with the given
// header fields. It reports whether the request reached the backend.
func corsServe(t *testing.T, p *CORS, method string, backend http.Header, fields ...string) (header http.Header, status int, reached bool) {
	t.Helper()
	w := httptest.NewRecorder()
	r := testkit.Prepare(httptest.NewRequest(method, "https://api.example.com/", nil), nil, fields...)
	err := p.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		reached = true
		for name, values := range backend {
			w.Header()[name] = append(w.Header()[name], values...)
		}
		w.WriteHeader(http.StatusTeapot)
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	return w.Result().Header, w.Code, reached
}

// corsOf formats the CORS fields of a header, followed by Vary.
func corsOf(header http.Header) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(header)) {
		if short, ok := strings.CutPrefix(name, "Access-Control-"); ok {
			all = append(all, short+"="+strings.Join(header[name], "|"))
		}
	}
	if vary, ok := header["Vary"]; ok {
		all = append(all, "Vary="+strings.Join(vary, "|"))
	}
	return strings.Join(all, "; ")
}

const (
	corsVary        = "Vary=Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
	corsAllMethods  = "Allow-Methods=GET, HEAD, POST, PUT, PATCH, DELETE; "
	corsExampleOnly = `{"allowed_origins": ["https://app.example.com"]}`
)

func TestPreflights(t *testing.T) {
	for _, tc := range []struct {
		what, config, origin, method, headers, want string
	}{
		{"allowed", corsExampleOnly, "https://app.example.com", "PUT", "",
			corsAllMethods + "Allow-Origin=https://app.example.com; " + corsVary},
		{"any header field", corsExampleOnly, "https://app.example.com", "PUT", "authorization,x-a",
			"Allow-Headers=authorization,x-a; " + corsAllMethods + "Allow-Origin=https://app.example.com; " + corsVary},
		{"another origin", corsExampleOnly, "https://evil.example", "PUT", "", corsVary},
		{"no origin", corsExampleOnly, "", "PUT", "", corsVary},
		{"null", corsExampleOnly, "null", "PUT", "", corsVary},
		{"null that is named", `{"allowed_origins": ["null"]}`, "null", "PUT", "",
			corsAllMethods + "Allow-Origin=null; " + corsVary},
		{"another method", corsExampleOnly, "https://app.example.com", "TRACE", "", corsVary},
		{"a method in lower case", corsExampleOnly, "https://app.example.com", "patch", "", corsVary},
		{"methods", `{"allowed_origins": ["https://*.example.com"], "allowed_methods": ["GET", "PURGE"]}`, "https://a.example.com", "PURGE", "",
			"Allow-Methods=GET, PURGE; Allow-Origin=https://a.example.com; " + corsVary},
		{"a method that is not among them", `{"allowed_origins": ["https://*.example.com"], "allowed_methods": ["GET", "PURGE"]}`, "https://a.example.com", "POST", "", corsVary},
		{"header fields", `{"allowed_origins": ["*"], "allowed_headers": ["Content-Type", "X-A"]}`, "https://a.example.com", "PUT", "content-type, x-a",
			"Allow-Headers=Content-Type, X-A; " + corsAllMethods + "Allow-Origin=*; " + corsVary},
		{"a header field that is not among them", `{"allowed_origins": ["*"], "allowed_headers": ["Content-Type", "X-A"]}`, "https://a.example.com", "PUT", "content-type,x-b", corsVary},
		{"credentials", `{"allowed_origins": ["https://app.example.com"], "allow_credentials": true, "max_age": "10m", "exposed_headers": ["X-A"]}`, "https://app.example.com", "GET", "",
			"Allow-Credentials=true; " + corsAllMethods + "Allow-Origin=https://app.example.com; Max-Age=600; " + corsVary},
		{"any origin", `{"allowed_origins": ["*"]}`, "https://any.example", "DELETE", "",
			corsAllMethods + "Allow-Origin=*; " + corsVary},
		{"regular expression", `{"allowed_origins": ["~https://app-[0-9]\\.example\\.com"]}`, "https://app-7.example.com", "DELETE", "",
			corsAllMethods + "Allow-Origin=https://app-7.example.com; " + corsVary},
	} {
		p := testkit.Load[CORS](t, tc.config)
		fields := []string{"Access-Control-Request-Method", tc.method}
		if tc.origin != "" {
			fields = append(fields, "Origin", tc.origin)
		}
		if tc.headers != "" {
			fields = append(fields, "Access-Control-Request-Headers", tc.headers)
		}
		header, status, reached := corsServe(t, p, http.MethodOptions, nil, fields...)
		if got := corsOf(header); got != tc.want || status != http.StatusNoContent || reached {
			t.Errorf("%s: got %d (reached the backend: %v)\n%s\nwant\n%s", tc.what, status, reached, got, tc.want)
		}
	}
}

func TestPreflightFromThePublicInternet(t *testing.T) {
	ask := []string{"Origin", "https://app.example.com", "Access-Control-Request-Method", "GET", "Access-Control-Request-Private-Network", "true"}
	header, _, _ := corsServe(t, testkit.Load[CORS](t, corsExampleOnly), http.MethodOptions, nil, ask...)
	if got := header.Get("Access-Control-Allow-Private-Network"); got != "" {
		t.Errorf("not allowed, but %q", got)
	}
	p := testkit.Load[CORS](t, `{"allowed_origins": ["https://app.example.com"], "allow_private_network": true}`)
	header, _, _ = corsServe(t, p, http.MethodOptions, nil, ask...)
	if got := header.Get("Access-Control-Allow-Private-Network"); got != "true" || !strings.Contains(header.Get("Vary"), "Private-Network") {
		t.Errorf("allowed, but the header is %v", header)
	}
	header, _, _ = corsServe(t, p, http.MethodOptions, nil, ask[:4]...)
	if got := header.Get("Access-Control-Allow-Private-Network"); got != "" {
		t.Errorf("not asked for, but %q", got)
	}
}

// TestPreflightsAgreeWithAnotherImplementation compares preflight decisions with rs/cors.
func TestPreflightsAgreeWithAnotherImplementation(t *testing.T) {
	origins := []string{"https://app.example.com", "http://localhost:8080", "https://evil.example", "null", "https://x.app.example.com", ""}
	methods := []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PURGE", "get", ""}
	headers := []string{"", "content-type", "content-type,x-a", "authorization", "x-a,x-b", "x-b"}
	p := testkit.Load[CORS](t, `{"allowed_origins": ["https://app.example.com", "http://localhost:8080"],
		"allowed_methods": ["GET", "PUT", "PURGE"], "allowed_headers": ["Content-Type", "X-A"], "allow_credentials": true, "max_age": "1m"}`)
	other := rscors.New(rscors.Options{
		AllowedOrigins: p.AllowedOrigins, AllowedMethods: p.AllowedMethods, AllowedHeaders: p.AllowedHeaders,
		AllowCredentials: true, MaxAge: 60,
	})
	allowed := 0
	for _, origin := range origins {
		for _, method := range methods {
			for _, names := range headers {
				var fields []string
				for name, value := range map[string]string{"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": names} {
					if value != "" {
						fields = append(fields, name, value)
					}
				}
				got, status, reached := corsServe(t, p, http.MethodOptions, nil, fields...)
				w := httptest.NewRecorder()
				other.HandlerFunc(w, testkit.Prepare(httptest.NewRequest(http.MethodOptions, "/", nil), nil, fields...))
				want := w.Result().Header
				for _, name := range []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"} {
					if got.Get(name) != want.Get(name) {
						t.Errorf("%q: %s is %q, the other says %q", fields, name, got.Get(name), want.Get(name))
					}
				}
				if isPreflight := method != ""; isPreflight == reached || isPreflight && status != w.Code {
					t.Errorf("%q: status %d, reached %v; the other says %d", fields, status, reached, w.Code)
				}
				if got.Get("Access-Control-Allow-Origin") != "" {
					allowed++
				}
			}
		}
	}
	if allowed == 0 {
		t.Error("nothing was allowed")
	}
}

// corsBackend is a backend's response header with CORS fields and Vary.
var corsBackend = http.Header{
	"Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Credentials": {"true"}, "Access-Control-Allow-Methods": {"TRACE"},
	"Access-Control-Allow-Headers": {"*"}, "Access-Control-Expose-Headers": {"X-Secret"}, "Access-Control-Max-Age": {"86400"},
	"Access-Control-Allow-Private-Network": {"true"},
}

func TestResponses(t *testing.T) {
	full := `{"allowed_origins": ["https://app.example.com"], "allowed_methods": ["GET"], "exposed_headers": ["X-A", "X-B"], "allow_credentials": true}`
	for _, tc := range []struct {
		what, config, method, origin, vary, want string
	}{
		{"allowed", corsExampleOnly, "GET", "https://app.example.com", "", "Allow-Origin=https://app.example.com; Vary=Origin"},
		{"all options", full, "GET", "https://app.example.com", "",
			"Allow-Credentials=true; Allow-Origin=https://app.example.com; Expose-Headers=X-A, X-B; Vary=Origin"},
		{"no origin", full, "GET", "", "", "Vary=Origin"},
		{"another origin", full, "GET", "https://evil.example", "", "Vary=Origin"},
		{"another method", full, "POST", "https://app.example.com", "", "Vary=Origin"},
		{"plain OPTIONS", full, "OPTIONS", "https://app.example.com", "",
			"Allow-Credentials=true; Allow-Origin=https://app.example.com; Expose-Headers=X-A, X-B; Vary=Origin"},
		{"any origin", `{"allowed_origins": ["*"]}`, "GET", "https://any.example", "", "Allow-Origin=*"},
		{"any origin, none said", `{"allowed_origins": ["*"], "exposed_headers": ["*"]}`, "GET", "", "", "Allow-Origin=*; Expose-Headers=*"},
		{"the backend's Vary stays", corsExampleOnly, "GET", "", "Accept-Encoding", "Vary=Accept-Encoding|Origin"},
		{"and is not repeated", corsExampleOnly, "GET", "", "Accept-Encoding, ORIGIN", "Vary=Accept-Encoding, ORIGIN"},
		{"nor is more added to all", corsExampleOnly, "GET", "", "*", "Vary=*"},
		{"and stays alone", `{"allowed_origins": ["*"]}`, "GET", "", "Origin", "Allow-Origin=*; Vary=Origin"},
	} {
		backend := corsBackend.Clone()
		if tc.vary != "" {
			backend.Set("Vary", tc.vary)
		}
		var fields []string
		if tc.origin != "" {
			fields = []string{"Origin", tc.origin}
		}
		header, status, reached := corsServe(t, testkit.Load[CORS](t, tc.config), tc.method, backend, fields...)
		if got := corsOf(header); got != tc.want || status != http.StatusTeapot || !reached {
			t.Errorf("%s: got %d (reached the backend: %v)\n%s\nwant\n%s", tc.what, status, reached, got, tc.want)
		}
	}
}

// TestTwoOriginsAreNone checks that a request with two Origin values is not allowed.
func TestTwoOriginsAreNone(t *testing.T) {
	header, _, _ := corsServe(t, testkit.Load[CORS](t, corsExampleOnly), "GET", nil, "Origin", "https://app.example.com", "Origin", "https://app.example.com")
	if got := corsOf(header); got != "Vary=Origin" {
		t.Errorf("got %s", got)
	}
}

// TestErrorsMayBeRead checks that pages can read the errors of all later handlers.
func TestErrorsMayBeRead(t *testing.T) {
	p := testkit.Load[CORS](t, corsExampleOnly)
	w := httptest.NewRecorder()
	r := testkit.Prepare(httptest.NewRequest("GET", "/", nil), nil, "Origin", "https://app.example.com")
	err := p.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
		return caddyhttp.Error(http.StatusUnauthorized, nil)
	}))
	if got := corsOf(w.Header()); err == nil || got != "Allow-Origin=https://app.example.com; Vary=Origin" {
		t.Errorf("got %v and %s", err, got)
	}
}

// TestResponsesShareNoValues checks that responses share no header values, because
// Caddy's `header` directive edits values in place.
func TestResponsesShareNoValues(t *testing.T) {
	p := testkit.Load[CORS](t, `{"allowed_origins": ["https://app.example.com"], "exposed_headers": ["X-A"], "allow_credentials": true}`)
	for _, fields := range [][]string{{}, {"Origin", "https://app.example.com"}, {"Origin", "https://app.example.com", "Access-Control-Request-Method", "GET"}} {
		for _, method := range []string{"GET", "OPTIONS"} {
			first, _, _ := corsServe(t, p, method, nil, fields...)
			want := corsOf(first)
			w := httptest.NewRecorder()
			_ = p.ServeHTTP(w, testkit.Prepare(httptest.NewRequest(method, "/", nil), nil, fields...), caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
			for name := range w.Header() {
				w.Header()[name][0] = "changed"
				w.Header()[name] = append(w.Header()[name], "added")
			}
			if second, _, _ := corsServe(t, p, method, nil, fields...); corsOf(second) != want {
				t.Errorf("%s %v: after a change, got\n%s\nwant\n%s", method, fields, corsOf(second), want)
			}
		}
	}
}

func TestCORSTurnedOff(t *testing.T) {
	p := testkit.Load[CORS](t, `{"disabled": true}`)
	header, status, reached := corsServe(t, p, http.MethodOptions, corsBackend, "Origin", "https://a.example", "Access-Control-Request-Method", "GET")
	if !reached || status != http.StatusTeapot || header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("got %d %v", status, header)
	}
}

func TestCORSInACaddyfile(t *testing.T) {
	testkit.CheckDirectives[CORS](t, options.Unmarshal, [][2]string{
		{"rgate_cors https://a.example https://*.b.example", `{"allowed_origins":["https://a.example","https://*.b.example"]}`},
		{"rgate_cors *", `{"allowed_origins":["*"]}`},
		{"rgate_cors off", `{"disabled":true}`},
		{"rgate_cors {\n allowed_origins https://a.example\n allowed_origins https://b.example\n allowed_methods GET PUT\n allowed_headers X-A X-B\n exposed_headers X-C\n allow_credentials\n max_age 10m\n allow_private_network\n}",
			`{"allowed_origins":["https://a.example","https://b.example"],"allowed_methods":["GET","PUT"],"allowed_headers":["X-A","X-B"],"exposed_headers":["X-C"],"allow_credentials":true,"max_age":600000000000,"allow_private_network":true}`},
		{"rgate_cors", "allowed_origins is required: list origins such as https://app.example.com, or * for all"},
		{"rgate_cors a.example", `invalid origin "a.example": must have a scheme, such as https://app.example.com`},
		{"rgate_cors * {\n allow_credentials\n}", "allow_credentials and allowed_origins * cannot be combined, because any website could send requests as the user: list the origins or remove allow_credentials"},
		{"rgate_cors ~.* {\n allow_credentials\n}", "allow_credentials and allowed_origins ~.* cannot be combined, because any website could send requests as the user: list the origins or remove allow_credentials"},
		{"rgate_cors * {\n allowed_methods get\n}", `invalid method "get": must be in upper case: use GET`},
		{"rgate_cors * {\n allowed_methods *\n}", "invalid method *: list the methods, such as GET, POST and DELETE"},
		{"rgate_cors * {\n allowed_methods \"A B\"\n}", `invalid method "A B": must be a name such as GET`},
		{"rgate_cors * {\n allowed_headers X-A *\n}", "* and names cannot be combined in allowed_headers: remove * or the names"},
		{"rgate_cors * {\n exposed_headers \"X A\"\n}", `invalid header field name "X A": use a name such as X-Request-ID`},
		{"rgate_cors https://a.example {\n exposed_headers *\n allow_credentials\n}", "exposed_headers * and allow_credentials cannot be combined: list the header fields"},
		{"rgate_cors * {\n max_age 500ms\n}", "invalid max_age 500ms: must not be negative or have fractions of a second: use a duration such as 10m"},
		{"rgate_cors * {\n max_age -1s\n}", "invalid max_age -1s: must not be negative or have fractions of a second: use a duration such as 10m"},
	})
}
