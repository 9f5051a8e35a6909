package integration

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/net/websocket"

	"github.com/rgate/rgate/internal/testkit"
)

// passwordHash returns a password hash for Caddy's basic_auth.
func passwordHash(t testing.TB, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	must(t, "hashing a password", err)
	return string(hash)
}

// nosyBackend starts a server that sets its own CORS headers and sends gzip, 103 and 304
// responses. It returns its address.
func nosyBackend(t testing.TB) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		for _, field := range []string{"Origin", "Credentials", "Methods", "Headers", "Private-Network"} {
			header.Set("Access-Control-Allow-"+field, "*")
		}
		header.Set("Access-Control-Expose-Headers", "X-Secret")
		header.Set("Access-Control-Max-Age", "86400")
		header.Set("X-Request-ID", "of-the-backend")
		header.Set("Server", "nosy/1.2.3")
		header.Set("X-Powered-By", "gossip")
		header.Set("X-Got-Request-ID", r.Header.Get("X-Request-ID"))
		header.Set("X-Got-Traceparent", strings.Join(r.Header["Traceparent"], "|"))
		switch r.URL.Path {
		case "/gzip":
			header.Set("Content-Encoding", "gzip")
			header.Set("Vary", "Accept-Encoding")
			zipped := gzip.NewWriter(w)
			_, _ = io.WriteString(zipped, strings.Repeat("zipped ", 1000))
			_ = zipped.Close()
		case "/unchanged":
			header.Set("Etag", `"1"`)
			w.WriteHeader(http.StatusNotModified)
		case "/hints":
			header.Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, "hinted")
		default:
			header.Set("Content-Length", "5")
			_, _ = io.WriteString(w, "nosy\n")
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// saysNothingOfCORS checks that Access-Control-Allow-Origin has the given value and that
// no other CORS header is set.
func saysNothingOfCORS(t testing.TB, what string, header http.Header, allowed string) {
	t.Helper()
	if got := header.Get("Access-Control-Allow-Origin"); got != allowed {
		t.Errorf("%s: Access-Control-Allow-Origin is %q, want %q", what, got, allowed)
	}
	for name, values := range header {
		if strings.HasPrefix(name, "Access-Control-") && name != "Access-Control-Allow-Origin" {
			t.Errorf("%s: got %s: %q", what, name, values)
		}
	}
}

// Preflight requests have no credentials: the gateway responds before authentication, and
// the backend receives no request.
func TestPreflightsComeBeforeAuthentication(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{})
	g := startGateway(t, fmt.Sprintf(`
cors: {allowed_origins: ["https://app.example.com"], allow_credentials: true, max_age: 10m}
routes:
  - path_prefix: /
    backend: web
    handle: [{handler: authentication, providers: {http_basic: {accounts: [{username: alice, password: %q}]}}}]
backends: [{name: web, match_labels: {app_name: $APP}}]
`, passwordHash(t, "secret")))
	g.await(t, "web", 1)
	preflight := func(origin string) response {
		return g.ask(t, "OPTIONS", "/orders", "", "Origin", origin, "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "authorization")
	}
	got := preflight("https://app.example.com")
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin":      "https://app.example.com",
		"Access-Control-Allow-Methods":     "GET, HEAD, POST, PUT, PATCH, DELETE",
		"Access-Control-Allow-Headers":     "authorization",
		"Access-Control-Allow-Credentials": "true",
		"Access-Control-Max-Age":           "600",
	} {
		if got.header.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, got.header.Get(name), want)
		}
	}
	if got.status != http.StatusNoContent || got.body != "" || !strings.Contains(got.header.Get("Vary"), "Origin") {
		t.Errorf("a preflight: got %d, %q, %v", got.status, got.body, got.header)
	}
	if got := preflight("https://evil.example"); got.status != http.StatusNoContent {
		t.Errorf("a preflight of another origin: got %d", got.status)
	} else {
		saysNothingOfCORS(t, "a preflight of another origin", got.header, "")
	}
	// Requests allowed by CORS still require authentication, and pages may read the
	// error.
	got = g.ask(t, "PUT", "/orders", "body", "Origin", "https://app.example.com")
	if got.status != http.StatusUnauthorized || got.header.Get("Access-Control-Allow-Origin") != "https://app.example.com" {
		t.Errorf("without a password, got %d, %v", got.status, got.header)
	}
	// An OPTIONS request that is not a preflight is handled like any other request.
	if got := g.ask(t, "OPTIONS", "/orders", "", "Origin", "https://app.example.com"); got.status != http.StatusUnauthorized {
		t.Errorf("an ordinary OPTIONS request: got %d", got.status)
	}
	if seen := web.counts(t); seen.Total != 0 {
		t.Errorf("the backend has seen %v", seen.ByMethod)
	}
	request := g.request(t, "OPTIONS", "/orders", "", "Origin", "https://app.example.com")
	request.SetBasicAuth("alice", "secret")
	got, err := do(g.client, request)
	must(t, "asking", err)
	if e := got.echo(t); e.Method != "OPTIONS" || got.header.Get("Access-Control-Allow-Origin") != "https://app.example.com" {
		t.Errorf("with a password, got %s, %v", e.Method, got.header)
	}
}

func TestBackendsHaveNoSayInCORS(t *testing.T) {
	t.Parallel()
	g := startGateway(t, fmt.Sprintf(`
cors: ["https://app.example.com", "https://*.example.org", "~https://app-[0-9]+\\.example\\.net"]
routes:
  - {path_prefix: /, backend: nosy}
  - {path_prefix: /open, backend: nosy, cors: "*"}
  - {path_prefix: /own, backend: nosy, cors: false}
  - {path_prefix: /gone, backend: gone}
backends: [{name: nosy, dial: [%q]}, {name: gone, dial: ["127.0.0.1:%d"]}]
`, nosyBackend(t), freePort(t)))
	for _, tc := range []struct{ target, origin, allowed, vary string }{
		{"/", "", "", "Origin"},
		{"/", "https://app.example.com", "https://app.example.com", "Origin"},
		{"/", "https://a.b.example.org", "https://a.b.example.org", "Origin"},
		{"/", "https://app-12.example.net", "https://app-12.example.net", "Origin"},
		{"/", "https://app-12.example.net.evil.example", "", "Origin"},
		{"/", "https://example.org", "", "Origin"},
		{"/", "http://app.example.com", "", "Origin"},
		{"/", "null", "", "Origin"},
		{"/gzip", "https://app.example.com", "https://app.example.com", "Accept-Encoding Origin"},
		{"/unchanged", "https://app.example.com", "https://app.example.com", "Origin"},
		{"/hints", "https://app.example.com", "https://app.example.com", "Origin"},
		{"/open", "", "*", ""},
		{"/open", "https://any.example", "*", ""},
		{"/gone", "https://app.example.com", "https://app.example.com", "Origin"},
		{"/gone", "", "", "Origin"},
	} {
		var headers []string
		if tc.origin != "" {
			headers = []string{"Origin", tc.origin}
		}
		what := tc.target + " for " + tc.origin
		got := g.ask(t, "GET", tc.target, "", headers...)
		saysNothingOfCORS(t, what, got.header, tc.allowed)
		if vary := strings.Join(got.header["Vary"], " "); vary != tc.vary {
			t.Errorf("%s: Vary is %q, want %q", what, vary, tc.vary)
		}
		if want := tc.target == "/gone"; (got.status == http.StatusServiceUnavailable) != want {
			t.Errorf("%s: got %d", what, got.status)
		}
	}
	if got := g.get(t, "/own"); got.header.Get("Access-Control-Allow-Origin") != "*" || got.header.Get("Access-Control-Max-Age") != "86400" {
		t.Errorf("turned off, the policy still changes %v", got.header)
	}
}

// cors, request_id and security wrap responses. Used together, they must not impair
// WebSockets, streams and informational responses.
func TestResponsesPassUnharmedThroughPolicies(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{})
	g := startGateway(t, fmt.Sprintf(`
cors: ["https://app.example.com"]
request_id:
security: {hide_server: true}
routes: [{path_prefix: /nosy, backend: nosy, strip_prefix: true}, {path_prefix: /, backend: web}]
backends: [{name: web, match_labels: {app_name: $APP}}, {name: nosy, dial: [%q]}]
`, nosyBackend(t)))
	g.await(t, "web", 1)

	t.Run("WebSocket", func(t *testing.T) {
		conn, err := websocket.Dial("ws://"+g.address()+"/ws", "", "https://app.example.com")
		must(t, "opening a WebSocket", err)
		defer conn.Close()
		must(t, "setting a deadline", conn.SetDeadline(time.Now().Add(patience)))
		for _, sent := range []string{"a", strings.Repeat("x", 1<<16)} {
			must(t, "sending", websocket.Message.Send(conn, sent))
			var got string
			must(t, "receiving", websocket.Message.Receive(conn, &got))
			if got != sent {
				t.Errorf("a message of %d bytes came back as one of %d", len(sent), len(got))
			}
		}
	})
	t.Run("server-sent events", func(t *testing.T) {
		response, err := g.client.Do(g.request(t, "GET", "/sse?n=2&every=1h", ""))
		must(t, "asking for events", err)
		late := time.AfterFunc(patience, func() { _ = response.Body.Close() })
		defer late.Stop()
		if line, err := bufio.NewReader(response.Body).ReadString('\n'); err != nil || line != "id: 1\n" {
			t.Errorf("got %q and %v", line, err)
		}
		_ = response.Body.Close()
		testkit.Eventually(t, "the backend's stream ends", func() bool { return web.counts(t).InFlight == 0 })
	})
	t.Run("trailers", func(t *testing.T) {
		request := g.request(t, "POST", "/trailers", "")
		request.Body, request.ContentLength = io.NopCloser(strings.NewReader("12345")), -1
		request.Trailer = http.Header{"X-Mine": {"yes"}}
		got, err := do(g.client, request)
		must(t, "asking", err)
		if got.trailer.Get("X-Mine") != "yes" || !strings.HasPrefix(got.trailer.Get("X-Body-Sha256"), "5994471a") {
			t.Errorf("got %d with trailers %v", got.status, got.trailer)
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		if got := g.ask(t, "HEAD", "/nosy/", ""); got.status != 200 || got.length != 5 || got.body != "" {
			t.Errorf("got %d with length %d and %q", got.status, got.length, got.body)
		}
	})
	t.Run("304", func(t *testing.T) {
		if got := g.ask(t, "GET", "/nosy/unchanged", "", "If-None-Match", `"1"`); got.status != 304 || got.header.Get("Etag") != `"1"` || got.body != "" {
			t.Errorf("got %d, %v, %q", got.status, got.header, got.body)
		}
	})
	t.Run("gzip", func(t *testing.T) {
		got := g.ask(t, "GET", "/nosy/gzip", "", "Accept-Encoding", "gzip")
		unzipped, err := gzip.NewReader(strings.NewReader(got.body))
		must(t, "reading gzip", err)
		body, err := io.ReadAll(unzipped)
		if err != nil || string(body) != strings.Repeat("zipped ", 1000) || got.header.Get("Content-Encoding") != "gzip" {
			t.Errorf("got %d bytes, %v, %v", len(body), err, got.header)
		}
	})
	t.Run("103", func(t *testing.T) {
		text := g.raw(t, "GET /nosy/hints HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		hints, rest, _ := strings.Cut(text, "\r\n\r\n")
		if !strings.HasPrefix(hints, "HTTP/1.1 103 ") || !strings.HasPrefix(rest, "HTTP/1.1 200 ") || strings.Count(rest, "X-Request-Id: ") != 1 ||
			strings.Contains(text, "Access-Control-") || strings.Contains(text, "nosy/1.2.3") {
			t.Errorf("got %q", text)
		}
	})
}

// A preflight is routed by the requested method instead of its own, and every response
// has the headers of the gateway's policies.
func TestPreflightsFindTheirRoute(t *testing.T) {
	t.Parallel()
	dial := nosyBackend(t)
	g := startGateway(t, `
request_id: true
cors: https://app.example.com
routes:
  - {path_prefix: /a, methods: [PUT], backend: web}
  - {path_prefix: /b, methods: [GET], backend: web, cors: false}
backends: [{name: web, dial: ["`+dial+`"]}]
`)
	ask := func(method, target, about string) response {
		headers := []string{"Origin", "https://app.example.com"}
		if about != "" {
			headers = append(headers, "Access-Control-Request-Method", about)
		}
		return g.ask(t, method, target, "", headers...)
	}
	for _, tc := range []struct {
		what, method, target, about string
		status                      int
		allowed                     bool
	}{
		{"a preflight for a method that a route takes", "OPTIONS", "/a", "PUT", http.StatusNoContent, true},
		{"for one that it does not take, so that the page can read the 405", "OPTIONS", "/a", "DELETE", http.StatusNoContent, true},
		{"the request that follows", "DELETE", "/a", "", http.StatusMethodNotAllowed, true},
		{"no preflight", "OPTIONS", "/a", "", http.StatusMethodNotAllowed, true},
		{"a request that no route takes", "GET", "/nowhere", "", http.StatusNotFound, true},
		{"a request of a route without CORS", "GET", "/b", "", http.StatusOK, false},
	} {
		got := ask(tc.method, tc.target, tc.about)
		origin := got.header.Get("Access-Control-Allow-Origin")
		if got.status != tc.status || (origin == "https://app.example.com") != tc.allowed || got.header.Get("X-Request-ID") == "" {
			t.Errorf("%s: got %d %v", tc.what, got.status, got.header)
		}
	}
}
