package security

import (
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/testkit"
)

// securityServe sends a request through a policy to a backend that responds with the
// given header fields. It returns the sorted header fields of the response.
func securityServe(t *testing.T, p *Security, r *http.Request, backend ...string) string {
	t.Helper()
	w := httptest.NewRecorder()
	err := p.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		for i := 0; i+1 < len(backend); i += 2 {
			w.Header().Add(backend[i], backend[i+1])
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	var fields []string
	for _, name := range slices.Sorted(maps.Keys(w.Header())) {
		fields = append(fields, name+": "+strings.Join(w.Header()[name], " | "))
	}
	return strings.Join(fields, "\n")
}

func TestSecurityFields(t *testing.T) {
	const defaults = "Referrer-Policy: strict-origin-when-cross-origin\nX-Content-Type-Options: nosniff\nX-Frame-Options: SAMEORIGIN"
	for _, tc := range []struct {
		what, config string
		backend      []string
		want         string
	}{
		{"defaults", `{}`, nil, defaults},
		{"the backend's own stay", `{}`, []string{"X-Frame-Options", "DENY", "Referrer-Policy", "no-referrer", "X-Content-Type-Options", "nosniff"},
			"Referrer-Policy: no-referrer\nX-Content-Type-Options: nosniff\nX-Frame-Options: DENY"},
		{"each is turned off", `{"hsts": "off", "content_type_options": "off", "frame_options": "off", "referrer_policy": "off", "content_security_policy": "off", "permissions_policy": "off"}`, nil, ""},
		{"each is given", `{"content_type_options": "nosniff", "frame_options": "DENY", "referrer_policy": "no-referrer", "content_security_policy": "default-src 'self'", "permissions_policy": "camera=()"}`, nil,
			"Content-Security-Policy: default-src 'self'\nPermissions-Policy: camera=()\nReferrer-Policy: no-referrer\nX-Content-Type-Options: nosniff\nX-Frame-Options: DENY"},
		{"the server is told", `{}`, []string{"Server", "nginx/1.2.3", "X-Powered-By", "PHP/5"}, defaults[:strings.Index(defaults, "X-")] + "Server: nginx/1.2.3\n" + defaults[strings.Index(defaults, "X-"):] + "\nX-Powered-By: PHP/5"},
		{"the server is hidden", `{"hide_server": true}`, []string{"Server", "a", "X-Powered-By", "a", "X-Powered-By", "b", "X-AspNet-Version", "a", "X-AspNetMvc-Version", "a", "X-Generator", "a", "X-Runtime", "a"}, defaults},
		{"more is hidden", `{"hide": ["via", "X-Secret"]}`, []string{"Via", "1.1 Caddy", "X-Secret", "a"}, defaults},
	} {
		p := testkit.Load[Security](t, tc.config)
		if got := securityServe(t, p, httptest.NewRequest("GET", "/", nil), tc.backend...); got != tc.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tc.what, got, tc.want)
		}
	}
}

func TestHSTSIsForTLSOnly(t *testing.T) {
	const year = "Strict-Transport-Security: max-age=31536000"
	p := testkit.Load[Security](t, `{}`)
	plain := func(trusted bool, proto string) *http.Request {
		r := testkit.Prepare(httptest.NewRequest("GET", "/", nil), nil)
		if proto != "" {
			r.Header.Set("X-Forwarded-Proto", proto)
		}
		caddyhttp.SetVar(r.Context(), caddyhttp.TrustedProxyVarKey, trusted)
		return r
	}
	secure := httptest.NewRequest("GET", "/", nil)
	secure.TLS = new(tls.ConnectionState)
	for _, tc := range []struct {
		what string
		r    *http.Request
		want bool
	}{
		{"TLS", secure, true}, {"plain HTTP", plain(false, ""), false},
		{"a client that says so", plain(false, "https"), false},
		{"a trusted proxy that says so", plain(true, "https"), true},
		{"a trusted proxy that does not", plain(true, "http"), false},
	} {
		if got := securityServe(t, p, tc.r); strings.Contains(got, year) != tc.want {
			t.Errorf("%s: got %s", tc.what, got)
		}
	}
	if got := securityServe(t, p, secure, "Strict-Transport-Security", "max-age=0"); !strings.Contains(got, "max-age=0") || strings.Contains(got, year) {
		t.Errorf("the backend's own: got %s", got)
	}
	if got := securityServe(t, testkit.Load[Security](t, `{"hsts": "off"}`), secure); strings.Contains(got, "Strict") {
		t.Errorf("off: got %s", got)
	}
}

// endless returns a request whose body has n bytes and no Content-Length.
func endless(n int) *http.Request {
	r := httptest.NewRequest("POST", "/", io.NopCloser(strings.NewReader(strings.Repeat("x", n))))
	r.ContentLength = -1
	return r
}

func TestLimits(t *testing.T) {
	announced := func(n int) *http.Request {
		return httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("x", n)))
	}
	target := func(n int) *http.Request { return httptest.NewRequest("GET", "/"+strings.Repeat("x", n-1), nil) }
	header := func(n int) *http.Request {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = "a"
		r.Header.Set("A", strings.Repeat("x", n-len("Host: a\r\nA: \r\n")))
		return r
	}
	webSocket := endless(11)
	webSocket.Method, webSocket.ProtoMajor = http.MethodConnect, 2
	for _, tc := range []struct {
		what, config string
		r            *http.Request
		want         int
	}{
		{"WebSocket in HTTP/2", `{"max_body": 10}`, webSocket, 200},
		{"body of the limit", `{"max_body": 10}`, announced(10), 200},
		{"body above it", `{"max_body": 10}`, announced(11), 413},
		{"stream of the limit", `{"max_body": 10}`, endless(10), 200},
		{"stream above it", `{"max_body": 10}`, endless(11), 413},
		{"no body", `{"max_body": 10}`, announced(0), 200},
		{"default", `{}`, announced(10 << 20), 200},
		{"above the default", `{}`, announced(10<<20 + 1), 413},
		{"stream above the default", `{}`, endless(10<<20 + 1), 413},
		{"no limit", `{"max_body": 0}`, announced(10<<20 + 1), 200},
		{"stream without a limit", `{"max_body": 0}`, endless(10<<20 + 1), 200},
		{"target of the limit", `{"max_url": 10}`, target(10), 200},
		{"target above it", `{"max_url": 10}`, target(11), 414},
		{"target of the default", `{}`, target(8192), 200},
		{"target above the default", `{}`, target(8193), 414},
		{"target without a limit", `{"max_url": 0}`, target(20000), 200},
		{"header of the limit", `{"max_header": 100}`, header(100), 200},
		{"header above it", `{"max_header": 100}`, header(101), 431},
		{"header without a limit", `{}`, header(100000), 200},
	} {
		p := testkit.Load[Security](t, tc.config)
		w := httptest.NewRecorder()
		reached, read := false, int64(0)
		err := p.ServeHTTP(w, testkit.Prepare(tc.r, nil), caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) (err error) {
			reached = true
			if read, err = io.Copy(io.Discard, r.Body); err != nil {
				return caddyhttp.Error(http.StatusBadGateway, err)
			}
			w.WriteHeader(http.StatusOK)
			return nil
		}))
		if err != nil || w.Code != tc.want || w.Header().Get("X-Frame-Options") == "" {
			t.Errorf("%s: got %d with %v and %v, want %d", tc.what, w.Code, w.Header(), err, tc.want)
		}
		streams := tc.r.ContentLength < 0
		if tc.want != 200 && reached != streams {
			t.Errorf("%s: reached the backend: %v", tc.what, reached)
		}
		if tc.want == 413 && streams && read != p.maxBody {
			t.Errorf("%s: %d bytes were read", tc.what, read)
		}
	}
}

// TestOtherResponsesStay checks that the response of a handler that ignores the body
// limit is kept, and that unrelated errors are unchanged.
func TestOtherResponsesStay(t *testing.T) {
	p := testkit.Load[Security](t, `{"max_body": 10}`)
	w := httptest.NewRecorder()
	err := p.ServeHTTP(w, testkit.Prepare(endless(11), nil), caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		w.WriteHeader(http.StatusOK)
		_, err := io.Copy(io.Discard, r.Body)
		return err
	}))
	var tooLarge *http.MaxBytesError
	if w.Code != http.StatusOK || !errors.As(err, &tooLarge) {
		t.Errorf("after a response: got %d and %v", w.Code, err)
	}
	cause := caddyhttp.Error(http.StatusBadGateway, nil)
	err = p.ServeHTTP(httptest.NewRecorder(), testkit.Prepare(endless(10), nil), caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return cause }))
	if err != cause {
		t.Errorf("of another error: got %v", err)
	}
}

func TestSecurityTurnedOff(t *testing.T) {
	p := testkit.Load[Security](t, `{"disabled": true, "max_url": 1, "hide_server": true}`)
	if got := securityServe(t, p, httptest.NewRequest("GET", "/long", nil), "Server", "a"); got != "Server: a" {
		t.Errorf("got %s", got)
	}
}

func TestSecurityInACaddyfile(t *testing.T) {
	testkit.CheckDirectives[Security](t, options.Unmarshal, [][2]string{
		{"rgate_security", `{}`},
		{"rgate_security off", `{"disabled":true}`},
		{"rgate_security {\n hsts \"max-age=63072000; includeSubDomains; preload\"\n frame_options DENY\n content_security_policy \"default-src 'self'\"\n hide_server\n hide Via X-Secret\n max_body 1MiB\n max_header 8KiB\n max_url 2KiB\n}",
			`{"hsts":"max-age=63072000; includeSubDomains; preload","frame_options":"DENY","content_security_policy":"default-src 'self'","hide_server":true,"hide":["Via","X-Secret"],"max_body":1048576,"max_header":8192,"max_url":2048}`},
		{"rgate_security {\n max_body 0\n hsts off\n}", `{"hsts":"off","max_body":0}`},
		{"rgate_security {\n hsts 1y\n}", `invalid hsts "1y": must be a value of Strict-Transport-Security such as "max-age=31536000; includeSubDomains", or off`},
		{"rgate_security {\n content_type_options sniff\n}", `unknown content_type_options "sniff" (did you mean "nosniff"?): use nosniff, off`},
		{"rgate_security {\n frame_options ALLOWALL\n}", `unknown frame_options "ALLOWALL": use DENY, SAMEORIGIN, off`},
		{"rgate_security {\n referrer_policy none\n}", `unknown referrer_policy "none": use no-referrer, no-referrer-when-downgrade, origin, origin-when-cross-origin, same-origin, strict-origin, strict-origin-when-cross-origin, unsafe-url, off`},
		{"rgate_security {\n content_security_policy \"a\nb\"\n}", `invalid content_security_policy: must be one line without control characters`},
		{"rgate_security {\n hide \"a b\"\n}", `invalid header field name "a b": use a name such as X-Powered-By`},
		{"rgate_security {\n max_body large\n}", `max_body must be a size such as 512KB, 10MB or 1GiB, not 'large'`},
	})
}
