package integration

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rgate/rgate/internal/testkit"
)

func TestSecurityFieldsAndHiding(t *testing.T) {
	t.Parallel()
	g := startGateway(t, fmt.Sprintf(`
security: {hide_server: true, hide: [Via], frame_options: DENY, referrer_policy: off}
routes:
  - {path_prefix: /, backend: nosy}
  - {path_prefix: /set, backend: nosy, security: }
  - {path_prefix: /off, backend: nosy, security: false}
  - {path_prefix: /gone, backend: gone}
backends: [{name: nosy, dial: [%q]}, {name: gone, dial: ["127.0.0.1:%d"]}]
`, nosyBackend(t), freePort(t)))
	for target, want := range map[string]map[string]string{
		"/": {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "", "Strict-Transport-Security": "",
			"Server": "", "X-Powered-By": "", "Via": "", "Content-Security-Policy": ""},
		"/set": {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "SAMEORIGIN", "Referrer-Policy": "strict-origin-when-cross-origin",
			"Server": "nosy/1.2.3", "X-Powered-By": "gossip", "Via": "1.1 Caddy"},
		"/off":  {"X-Content-Type-Options": "", "X-Frame-Options": "", "Referrer-Policy": "", "Server": "nosy/1.2.3"},
		"/gone": {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Server": ""},
	} {
		got := g.get(t, target)
		for name, value := range want {
			if got.header.Get(name) != value {
				t.Errorf("%s: %s is %q, want %q", target, name, got.header.Get(name), value)
			}
		}
	}
}

// intake is a server that reports the size of each request body, and whether it was
// complete.
type intake struct {
	address string
	bodies  chan body
}

type body struct {
	bytes int64
	whole bool
}

func startIntake(t testing.TB) *intake {
	in := &intake{bodies: make(chan body, 100)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		in.bodies <- body{n, err == nil}
	}))
	t.Cleanup(server.Close)
	in.address = server.Listener.Addr().String()
	return in
}

// seen returns the report on the next body.
func (in *intake) seen(t testing.TB) body {
	t.Helper()
	select {
	case b := <-in.bodies:
		return b
	case <-time.After(patience):
		t.Fatal("no body came")
		return body{}
	}
}

func TestLargeRequestsAreRefused(t *testing.T) {
	t.Parallel()
	in := startIntake(t)
	g := startGateway(t, fmt.Sprintf(`
security: {max_body: 1MiB, max_url: 1KiB, max_header: 4KiB}
routes: [{path_prefix: /, backend: intake}]
backends: [{name: intake, dial: [%q]}]
`, in.address))
	const limit = 1 << 20
	upload := func(size, announced int64) response {
		request := g.request(t, "POST", "/", "", "Accept", "application/json")
		request.Body, request.ContentLength = io.NopCloser(io.LimitReader(zeros{}, size)), announced
		got, err := do(g.client, request)
		must(t, "uploading", err)
		return got
	}
	for _, announced := range []int64{limit, -1} {
		if got := upload(limit, announced); got.status != 200 || in.seen(t) != (body{limit, true}) {
			t.Errorf("a body of the limit: got %d", got.status)
		}
	}
	refused := func(what string, got response, status int) {
		t.Helper()
		if want := fmt.Sprintf(`{"error":%q,"status":%d}`, http.StatusText(status), status); got.status != status || got.body != want {
			t.Errorf("%s: got %d and %q, want %s", what, got.status, got.body, want)
		}
		if got.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: the response has %v", what, got.header)
		}
	}
	refused("announced", upload(limit+1, limit+1), http.StatusRequestEntityTooLarge)
	if len(in.bodies) != 0 {
		t.Error("the backend has seen a body whose length was announced")
	}
	for _, size := range []int64{limit + 1, 20 * limit} {
		refused("streamed", upload(size, -1), http.StatusRequestEntityTooLarge)
		if seen := in.seen(t); seen.whole || seen.bytes > limit {
			t.Errorf("of a stream of %d bytes, the backend has seen %+v", size, seen)
		}
	}
	// With Expect: 100-continue, the request is rejected before its body is sent.
	text := g.raw(t, fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n", limit+1))
	if !strings.HasPrefix(text, "HTTP/1.1 413 ") {
		t.Errorf("got %q, want 413 at once", text)
	}
	refused("target", g.ask(t, "GET", "/"+strings.Repeat("x", 1024), "", "Accept", "application/json"), http.StatusRequestURITooLong)
	refused("header", g.ask(t, "GET", "/", "", "Accept", "application/json", "X-Large", strings.Repeat("x", 4096)), http.StatusRequestHeaderFieldsTooLarge)
	if got := g.metric(t, "rgate_refused_requests_total", "policy", "security", "code", "413"); got != 4 {
		t.Errorf("%v requests are counted as refused with 413, want 4", got)
	}
	if got := g.stats(t, "").Requests; got.Success != 2 || got.Error != 6 {
		t.Errorf("the statistics are %+v", got)
	}
}

// The limit also applies to containers and to Caddy's reverse_proxy.
func TestLargeBodiesNeverReachContainersWhole(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{})
	g := launch(t, "Caddyfile", `{
	admin localhost:$ADMIN
}
:$PORT {
	rgate_security {
		max_body 64KiB
	}
	reverse_proxy {
		dynamic docker_labels app_name=$APP
	}
}
`, nil, "run", "--config", "$FILE")
	g.awaitStatus(t, "/", 200)
	before := web.counts(t).Total
	got := g.ask(t, "POST", "/upload", strings.Repeat("x", 64<<10))
	if got.status != 200 || !strings.Contains(got.body, `"bytes":65536`) {
		t.Errorf("a body of the limit: got %d and %q", got.status, got.body)
	}
	if got := g.ask(t, "POST", "/upload", strings.Repeat("x", 64<<10+1)); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body above the limit: got %d and %q", got.status, got.body)
	}
	if after := web.counts(t).Total; after != before+1 {
		t.Errorf("the container has seen %d requests", after-before)
	}
	request := g.request(t, "POST", "/upload", "")
	request.Body, request.ContentLength = io.NopCloser(io.LimitReader(zeros{}, 10<<20)), -1
	got, err := do(g.client, request)
	must(t, "uploading", err)
	if got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a stream above the limit: got %d and %q", got.status, got.body)
	}
	testkit.Eventually(t, "the container is rid of the request", func() bool { return web.counts(t).InFlight == 0 })
}

func TestHSTSIsSentOverTLSOnly(t *testing.T) {
	t.Parallel()
	secure := freePort(t)
	g := launch(t, "Caddyfile", fmt.Sprintf(`{
	admin localhost:$ADMIN
	skip_install_trust
	auto_https disable_redirects
}
http://:$PORT {
	rgate_security
	respond plain
}
https://localhost:%d {
	tls internal
	rgate_security
	respond secure
}
`, secure), nil, "run", "--config", "$FILE")
	if got := g.get(t, "/"); got.body != "plain" || got.header.Get("Strict-Transport-Security") != "" || got.header.Get("X-Frame-Options") != "SAMEORIGIN" {
		t.Errorf("over plain HTTP, got %q, %v", got.body, got.header)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true} // the certificate is self-signed
	t.Cleanup(transport.CloseIdleConnections)
	var got response
	testkit.Eventually(t, "the site with TLS responds", func() (ok bool) {
		request, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("https://localhost:%d/", secure), nil)
		must(t, "making a request", err)
		got, err = do(&http.Client{Transport: transport}, request)
		return err == nil
	})
	if got.body != "secure" || got.header.Get("Strict-Transport-Security") != "max-age=31536000" {
		t.Errorf("over TLS, got %q, %v", got.body, got.header)
	}
}

// Connections of clients that send a header slowly are closed.
func TestSlowHeadersAreGivenUp(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "server: {timeouts: {read_header: 100ms}}\n")
	conn, err := net.Dial("tcp", g.address())
	must(t, "dialing", err)
	defer conn.Close()
	must(t, "setting a deadline", conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
	must(t, "sending a part of a header", err)
	if got, err := io.ReadAll(conn); err != nil || len(got) > 0 && !strings.HasPrefix(string(got), "HTTP/1.1 408 ") {
		t.Errorf("got %q and %v, want the end of the connection", got, err)
	}
}
