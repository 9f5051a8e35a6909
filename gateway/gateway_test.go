package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/requestbody"

	"github.com/rgate/rgate/internal/testkit"
)

// start provisions a gateway from a JSON configuration.
func start(t testing.TB, config string) *Gateway {
	t.Helper()
	g := new(Gateway)
	if err := caddy.StrictUnmarshalJSON([]byte(config), g); err != nil {
		t.Fatalf("reading the configuration: %v", err)
	}
	g.Name = t.Name() // separate statistics
	base, err := caddy.ProvisionContext(new(caddy.Config))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(base)
	if err := g.Provision(ctx); err != nil {
		cancel()
		t.Fatalf("provisioning: %v", err)
	}
	t.Cleanup(func() {
		cancel()
		if err := g.Cleanup(); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	})
	return g
}

// serve starts a server with the gateway, configured like Caddy's server.
func serve(t testing.TB, g *Gateway, server *caddyhttp.Server) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, server)
		err := g.ServeHTTP(w, r, nil)
		var handlerErr caddyhttp.HandlerError
		if errors.As(err, &handlerErr) {
			w.Header().Set("X-Returned", "error")
			w.WriteHeader(handlerErr.StatusCode)
		} else if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

type testResponse struct {
	status int
	body   string
	header http.Header
}

func get(t testing.TB, method, url string, header ...string) testResponse {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("reading the response to %s %s: %v", method, url, err)
	}
	return testResponse{response.StatusCode, string(body), response.Header}
}

// rawBackend accepts connections, reads a request from each, and calls respond to
// write a response.
func rawBackend(t testing.TB, respond func(net.Conn)) (address string, requests *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	requests = new(atomic.Int32)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					requests.Add(1)
					respond(conn)
				}
			}()
		}
	}()
	return l.Addr().String(), requests
}

// deadAddress returns an address that refuses connections.
func deadAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func oneBackend(dial, options string) string {
	return fmt.Sprintf(`{"routes": [{"path_prefix": "/", "backend": "b"}], "backends": [{"name": "b", "dial": [%s] %s}]}`, dial, options)
}

func quoted(addresses ...string) string { return `"` + strings.Join(addresses, `", "`) + `"` }

func TestStatusOfAnUnavailableBackend(t *testing.T) {
	drop := func(c net.Conn) {}
	neverRespond := make(chan struct{})
	t.Cleanup(func() { close(neverRespond) })
	for name, test := range map[string]struct {
		address func() (string, *atomic.Int32)
		options string
		want    int
	}{
		"no listener":           {func() (string, *atomic.Int32) { return deadAddress(t), nil }, "", 503},
		"connection is dropped": {func() (string, *atomic.Int32) { return rawBackend(t, drop) }, "", 503},
		"half a header": {func() (string, *atomic.Int32) {
			return rawBackend(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n") })
		}, "", 503},
		"garbage": {func() (string, *atomic.Int32) {
			return rawBackend(t, func(c net.Conn) { io.WriteString(c, "SSH-2.0-OpenSSH\r\n\r\n") })
		}, "", 502},
		"silence":           {func() (string, *atomic.Int32) { return rawBackend(t, func(net.Conn) { <-neverRespond }) }, `, "timeouts": {"first_byte": "50ms"}`, 504},
		"silence, in total": {func() (string, *atomic.Int32) { return rawBackend(t, func(net.Conn) { <-neverRespond }) }, `, "timeouts": {"total": "50ms"}`, 504},
		"unknown host name": {func() (string, *atomic.Int32) { return "no-such-host.invalid:80", nil }, "", 503},
	} {
		t.Run(name, func(t *testing.T) {
			address, requests := test.address()
			url := serve(t, start(t, oneBackend(quoted(address), test.options)), &caddyhttp.Server{})
			got := get(t, "POST", url)
			if got.status != test.want {
				t.Fatalf("got %d, want %d", got.status, test.want)
			}
			if wantRetry := test.want == 503; (got.header.Get("Retry-After") == "1") != wantRetry {
				t.Errorf("Retry-After is %q at %d", got.header.Get("Retry-After"), got.status)
			}
			if got.body != http.StatusText(test.want)+"\n" {
				t.Errorf("body %q", got.body)
			}
			if requests != nil && requests.Load() != 1 {
				t.Errorf("the backend saw %d requests, want 1", requests.Load())
			}
		})
	}
}

func TestErrorsAreJSONIfTheClientPrefersIt(t *testing.T) {
	url := serve(t, start(t, oneBackend(quoted(deadAddress(t)), "")), &caddyhttp.Server{})
	got := get(t, "GET", url, "Accept", "application/json, */*")
	var body struct {
		Status int
		Error  string
	}
	if err := json.Unmarshal([]byte(got.body), &body); err != nil || body.Status != 503 || body.Error != "Service Unavailable" {
		t.Errorf("body %q: %v", got.body, err)
	}
	if got.header.Get("Content-Type") != "application/json" {
		t.Errorf("content type %q", got.header.Get("Content-Type"))
	}
}

func TestErrorRoutesHandleFailures(t *testing.T) {
	server := &caddyhttp.Server{Errors: &caddyhttp.HTTPErrorConfig{Routes: caddyhttp.RouteList{{}}}}
	got := get(t, "GET", serve(t, start(t, oneBackend(quoted(deadAddress(t)), "")), server))
	if got.status != 503 || got.header.Get("X-Returned") != "error" || got.header.Get("Retry-After") != "1" {
		t.Errorf("got %+v, want the error returned with 503", got)
	}
}

func TestFailedDialIsRetriedForAllMethods(t *testing.T) {
	alive, _ := testkit.Backend(t, nil)
	config := oneBackend(quoted(deadAddress(t), deadAddress(t), alive), `, "lb_policy": {"policy": "first"}`)
	url := serve(t, start(t, config), &caddyhttp.Server{})
	for _, method := range []string{"GET", "POST", "DELETE"} {
		if got := get(t, method, url+"/x"); got.status != 200 || got.body != method+" /x" {
			t.Errorf("%s: got %d %q", method, got.status, got.body)
		}
	}
}

func TestLostConnectionIsRetriedIfIdempotent(t *testing.T) {
	for _, test := range []struct {
		method, body string
		want         int
		lost         int32
	}{
		{"GET", "", 200, 1},
		{"HEAD", "", 200, 1},
		{"OPTIONS", "", 200, 1},
		{"GET", "body", 503, 1},
		{"POST", "", 503, 1},
		{"PUT", "body", 503, 1},
	} {
		t.Run(test.method+test.body, func(t *testing.T) {
			losing, lost := rawBackend(t, func(net.Conn) {})
			alive, served := testkit.Backend(t, nil)
			url := serve(t, start(t, oneBackend(quoted(losing, alive), `, "lb_policy": {"policy": "first"}`)), &caddyhttp.Server{})
			r, _ := http.NewRequest(test.method, url, strings.NewReader(test.body))
			response, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			wantServed := int32(0)
			if test.want == 200 {
				wantServed = 1
			}
			if response.StatusCode != test.want || lost.Load() != test.lost || served.Load() != wantServed {
				t.Errorf("got %d, with %d requests lost and %d served; want %d, %d and %d",
					response.StatusCode, lost.Load(), served.Load(), test.want, test.lost, wantServed)
			}
		})
	}
}

func TestTimeoutIsNotRetried(t *testing.T) {
	neverRespond := make(chan struct{})
	t.Cleanup(func() { close(neverRespond) })
	slow, _ := rawBackend(t, func(net.Conn) { <-neverRespond })
	alive, served := testkit.Backend(t, nil)
	url := serve(t, start(t, oneBackend(quoted(slow, alive), `, "lb_policy": {"policy": "first"}, "timeouts": {"first_byte": "50ms"}`)), &caddyhttp.Server{})
	if got := get(t, "GET", url); got.status != 504 || served.Load() != 0 {
		t.Errorf("got %d with %d requests elsewhere, want 504 and none", got.status, served.Load())
	}
}

func TestRetriesCanBeDisabled(t *testing.T) {
	alive, _ := testkit.Backend(t, nil)
	url := serve(t, start(t, oneBackend(quoted(deadAddress(t), alive), `, "retries": 0, "lb_policy": {"policy": "first"}`)), &caddyhttp.Server{})
	if got := get(t, "GET", url); got.status != 503 {
		t.Errorf("got %d, want 503", got.status)
	}
}

func TestCanceledRequestIs499(t *testing.T) {
	entered := make(chan struct{})
	address, _ := testkit.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})
	g := start(t, oneBackend(quoted(address), ""))
	url := serve(t, g, &caddyhttp.Server{})
	ctx, cancel := context.WithCancel(context.Background())
	r, _ := http.NewRequestWithContext(ctx, "GET", url, nil)
	go func() {
		<-entered
		cancel()
	}()
	if _, err := http.DefaultTransport.RoundTrip(r); err == nil {
		t.Fatal("the request got a response")
	}
	testkit.Eventually(t, "the request counts as an error", func() bool {
		return strings.Contains(get(t, "GET", url+"/stats").body, `"success":0,"error":1`)
	})
}

func TestDefaultResponse(t *testing.T) {
	for _, test := range []struct {
		config, contentType, body string
		status                    int
	}{
		{`{}`, "", "", 404},
		{`{"default_response": {"body": "This is not reachable", "status_code": 403}}`, "text/plain; charset=utf-8", "This is not reachable", 403},
		{`{"default_response": {"body": "{\"ok\": false}"}}`, "application/json", `{"ok": false}`, 404},
		{`{"default_response": {"status_code": 204, "body": "ignored"}}`, "", "", 204},
	} {
		url := serve(t, start(t, test.config), &caddyhttp.Server{})
		got := get(t, "GET", url+"/nowhere")
		if got.status != test.status || got.body != test.body || got.header.Get("Content-Type") != test.contentType {
			t.Errorf("%s: got %+v", test.config, got)
		}
		head := get(t, "HEAD", url+"/nowhere")
		if head.body != "" || head.status != test.status || head.header.Get("Content-Length") != got.header.Get("Content-Length") {
			t.Errorf("%s: HEAD got %+v, after GET got %+v", test.config, head, got)
		}
	}
}

func TestRouteOptions(t *testing.T) {
	address, _ := testkit.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s", r.Method, r.RequestURI, r.Header.Get("X-Set"))
	})
	url := serve(t, start(t, fmt.Sprintf(`{
		"handle": [{"handler": "headers", "request": {"set": {"X-Set": ["all"]}}}],
		"routes": [
			{"path_prefix": "/plain", "backend": "b"},
			{"path_prefix": "/strip", "backend": "b", "strip_prefix": true},
			{"path_prefix": "/own", "backend": "b", "handle": [{"handler": "headers", "request": {"add": {"X-Set": ["own"]}},
				"response": {"deferred": true, "set": {"X-Route": ["{http.rgate.route}/{http.rgate.backend}/{http.rgate.container}"]}}}]},
			{"path_prefix": "/read", "backend": "b", "methods": ["GET"]}
		],
		"backends": [{"name": "b", "dial": [%s], "around": [{"handler": "headers", "response": {"set": {"X-Around": ["1"]}}}]}]
	}`, quoted(address))), &caddyhttp.Server{})
	for path, want := range map[string]string{
		"/plain/a%2Fb?x={y}": "GET /plain/a%2Fb?x={y} all",
		"/strip/a%2Fb?x=1":   "GET /a%2Fb?x=1 all",
		"/strip":             "GET / all",
	} {
		if got := get(t, "GET", url+path); got.body != want || got.header.Get("X-Around") != "1" {
			t.Errorf("%s: got %q, want %q", path, got.body, want)
		}
	}
	if got := get(t, "GET", url+"/own").header.Get("X-Route"); got != "/own/b/" {
		t.Errorf("placeholders say %q", got)
	}
	if got := get(t, "POST", url+"/read"); got.status != 405 || got.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST /read: got %d, Allow %q", got.status, got.header.Get("Allow"))
	}
}

func TestBodyTooLargeIs413(t *testing.T) {
	address, _ := testkit.Backend(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	url := serve(t, start(t, fmt.Sprintf(`{
		"handle": [{"handler": "request_body", "max_size": 10}],
		"routes": [{"path_prefix": "/", "backend": "b"}],
		"backends": [{"name": "b", "dial": [%s]}]
	}`, quoted(address))), &caddyhttp.Server{})
	response, err := http.Post(url, "text/plain", io.MultiReader(strings.NewReader(strings.Repeat("x", 1000))))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != 413 {
		t.Errorf("got %d, want 413", response.StatusCode)
	}
}
