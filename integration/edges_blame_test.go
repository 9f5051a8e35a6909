package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"

	"github.com/rgate/rgate/internal/testkit"
)

// bridgeAddress returns a non-loopback address of this machine. net/http never uses a
// proxy for loopback addresses.
func bridgeAddress(t *testing.T) string {
	t.Helper()
	requireEngine(t)
	about, err := engine.NetworkInspect(t.Context(), "bridge", network.InspectOptions{})
	must(t, "inspecting the default network", err)
	return about.IPAM.Config[0].Gateway
}

// serveOn runs a server on an address of this machine until the test ends.
func serveOn(t *testing.T, host string, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	must(t, "listening", err)
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: handler}}
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// serve runs a server on the loopback interface and returns its address.
func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	return serveOn(t, "127.0.0.1", handler).Listener.Addr().String()
}

// serveH2C runs an h2c server and returns its address.
func serveH2C(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// statusInPath responds with the status in the last path segment.
func statusInPath(w http.ResponseWriter, r *http.Request) {
	status := 200
	_, _ = fmt.Sscanf(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:], "%d", &status)
	w.WriteHeader(status)
}

func TestB1StatusesAboutTheRequestDoNotCount(t *testing.T) {
	t.Parallel()
	backend := serve(t, statusInPath)
	g := launch(t, "Caddyfile", strings.ReplaceAll(`{
	admin localhost:$ADMIN
}
:$PORT {
	handle /alone/* {
		rgate_circuit_breaker 2 1h
		reverse_proxy $DIAL
	}
	rgate {
		circuit_breaker 2 1h
		route /web web
		route /each each
		route /listed listed
		backend web {
			dial $DIAL
		}
		backend each {
			dial $DIAL
			around {
				circuit_breaker 2 1h {
					per_container
				}
			}
		}
		backend listed {
			dial $DIAL
			around {
				circuit_breaker 2 1h {
					statuses 5xx 501
				}
			}
		}
	}
}
`, "$DIAL", backend), nil, "run", "--config", "$FILE")
	for _, path := range []string{"/web", "/each", "/alone"} {
		for _, status := range []int{501, 505, 506, 507, 508, 510, 511, 400, 413, 431, 499} {
			for range 3 {
				got := g.ask(t, "FOO", fmt.Sprintf("%s/%d", path, status), "")
				wantStatus(t, path, got, status)
			}
		}
		wantStatus(t, path+" after what clients can provoke", g.get(t, path+"/200"), 200)
		// A 501 between failures does not reset the count of consecutive failures.
		for _, status := range []int{500, 501, 503} {
			wantStatus(t, path, g.get(t, fmt.Sprintf("%s/%d", path, status)), status)
		}
		wantStatus(t, path+" after failures", g.get(t, path+"/200"), 503)
	}
	for range 2 {
		wantStatus(t, "501", g.get(t, "/listed/501"), 501)
	}
	wantStatus(t, "501 where it is listed", g.get(t, "/listed/200"), 503)
}

func TestB2MistakesOfClientsDoNotCount(t *testing.T) {
	t.Parallel()
	backend := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		statusInPath(w, r)
	})
	modern := serveH2C(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %q", r.Proto, r.Header["Upgrade"])
	})
	g := startAllVersions(t, strings.NewReplacer("$DIAL", backend, "$H2C", modern).Replace(`
	handle /alone/* {
		rgate_circuit_breaker 1 1h
		reverse_proxy $DIAL
	}
	rgate {
		circuit_breaker 1 1h
		route /web web {
			security {
				max_body 1KB
			}
		}
		route /modern modern
		backend web {
			dial $DIAL
			proxy {
				fail_duration 1h
			}
		}
		backend modern {
			dial $H2C
			scheme h2c
		}
	}
`), "")
	for version, conn := range g.rawVersions(t) {
		for _, path := range []string{"/web/200", "/alone/200", "/modern"} {
			for _, method := range []string{"A B", "GET\x01", "G@T"} {
				got := readResponse(t, conn.open(t, true, ":method", method, ":scheme", "http", ":authority", "localhost", ":path", path))
				if got.status != 400 && !got.reset {
					t.Errorf("%s %q %s: got %d, want 400", version, method, path, got.status)
				}
			}
		}
	}
	for _, offer := range []string{"websocket", "h2c", "other/2"} {
		got := g.ask(t, "GET", "/modern", "", "Connection", "Upgrade, HTTP2-Settings", "Upgrade", offer, "HTTP2-Settings", "AAMAAABkAAQAAP__")
		if got.status != 200 || got.body != "HTTP/2.0 []" {
			t.Errorf("an offer of %s to a backend of HTTP/2: got %d %q, want it served without", offer, got.status, got.body)
		}
	}
	// The bodies are too large, malformed or truncated.
	chunked := "POST /web/200 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
	large := "800\r\n" + strings.Repeat("x", 2048) + "\r\n0\r\n\r\n"
	for what, want := range map[string]string{large: "413", "5\r\nhelloXX\r\n": "400"} {
		if got := g.raw(t, chunked+what); !strings.HasPrefix(got, "HTTP/1.1 "+want) {
			t.Errorf("a body %.20q: got %.60q, want %s", what, got, want)
		}
	}
	conn, err := net.Dial("tcp", g.address())
	must(t, "dialing", err)
	_, err = io.WriteString(conn, chunked+"5\r\nhel")
	must(t, "sending a part", err)
	must(t, "leaving", conn.Close())
	for _, path := range []string{"/web/200", "/alone/200", "/modern"} {
		wantStatus(t, path+" after mistakes of clients", g.get(t, path), 200)
	}
	testkit.Eventually(t, "the client that left is counted as such", func() bool {
		return strings.Contains(g.get(t, "/stats?by=route").body, "/web")
	})
	wantStatus(t, "after the client that left", g.get(t, "/web/200"), 200)
}

func TestB3RefusedUploadKeepsItsResponse(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, "listening", err)
	t.Cleanup(func() { _ = listener.Close() })
	var asked atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { // reads only the request's header
				defer conn.Close()
				request, err := http.ReadRequest(bufio.NewReaderSize(conn, 16))
				if err != nil {
					return
				}
				asked.Add(1)
				switch {
				case request.URL.Path == "/lost":
				case request.Method == http.MethodGet:
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
				default:
					_, _ = io.WriteString(conn, "HTTP/1.1 "+request.URL.Path[1:]+" No\r\nContent-Length: 6\r\nConnection: close\r\n\r\nrefuse")
				}
			}()
		}
	}()
	g := startAllVersions(t, strings.ReplaceAll(`
	rgate {
		circuit_breaker 1 1h
		route / web
		backend web {
			dial $DIAL
			retries 3
			proxy {
				fail_duration 1h
				max_fails 1
			}
		}
	}
`, "$DIAL", listener.Addr().String()), "")
	upload := strings.Repeat("x", 20<<20)
	for _, c := range g.versions(t) {
		for _, status := range []int{401, 413} {
			for i := range 10 {
				before := asked.Load()
				request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("%s/%d", c.base, status), strings.NewReader(upload))
				must(t, "making a request", err)
				if c.name == "HTTP/1.1" { // without Content-Length
					request.ContentLength = -1
				}
				got, err := do(c.Client, request)
				if err != nil || got.status != status || got.body != "refuse" || got.header.Get("Retry-After") != "" {
					t.Fatalf("%s, upload %d: got %d %q, %v, want the backend's %d", c.name, i, got.status, got.body, err, status)
				}
				if n := asked.Load() - before; n != 1 {
					t.Fatalf("%s: the backend was asked %d times", c.name, n)
				}
			}
		}
	}
	// A missing response does not count as a failure either.
	for range 3 {
		request := g.request(t, "POST", "/lost", upload)
		if got, err := do(g.client, request); err == nil && got.status != 503 {
			t.Errorf("without a response: got %d, want 503", got.status)
		}
	}
	wantStatus(t, "after the uploads", g.get(t, "/"), 200)
}

func TestB2SlowUploadsDoNotCount(t *testing.T) {
	t.Parallel()
	backend := serve(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	deaf := serve(t, func(http.ResponseWriter, *http.Request) { <-t.Context().Done() })
	g := startAllVersions(t, strings.NewReplacer("$DIAL", backend, "$DEAF", deaf).Replace(`
	rgate {
		circuit_breaker 1 1h
		route / web
		route /deaf deaf
		backend web {
			dial $DIAL
			concurrency 1
			timeouts {
				total 800ms
			}
		}
		backend deaf {
			dial $DEAF
			timeouts {
				total 800ms
			}
		}
	}
`), "")
	for _, c := range g.versions(t) {
		for _, length := range []int64{50, -1} {
			for _, silent := range []bool{false, true} {
				slow, body := io.Pipe()
				done := make(chan struct{})
				go func() {
					_, _ = io.WriteString(body, "abc")
					for tick := time.NewTicker(100 * time.Millisecond); ; {
						select {
						case <-done:
							return
						case <-tick.C:
						}
						if !silent {
							_, _ = io.WriteString(body, "x")
						}
					}
				}()
				request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.base+"/", slow)
				must(t, "making a request", err)
				request.ContentLength = length
				begun := time.Now()
				got, err := do(c.Client, request)
				if took := time.Since(begun); err != nil || got.status != 408 || took > 3*time.Second {
					t.Errorf("%s, length %d, silent %t: got %d and %v after %s, want 408 soon", c.name, length, silent, got.status, err, took)
				}
				close(done)
				slow.Close()
				wantStatus(t, c.name+": after a slow upload", g.get(t, "/"), 200)
			}
		}
	}
	// A backend that does not read the body counts as failing.
	got := g.ask(t, "POST", "/deaf", strings.Repeat("x", 20<<20))
	wantStatus(t, "a backend that does not read", got, 504)
	wantStatus(t, "after a backend that does not read", g.get(t, "/deaf"), 503)
}

// Passive health checks must not count client errors in requests without a body.
func TestB2HeadersThatABackendDoesNotTakeDoNotCount(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Config.MaxHeaderBytes = 4 << 10
	server.Start()
	t.Cleanup(server.Close)
	g := startGateway(t, `
routes: [{path_prefix: /, backend: web, circuit_breaker: {failures: 1, recovery: 1h}}]
backends:
  - name: web
    dial: ["`+server.Listener.Addr().String()+`"]
    scheme: h2c
    proxy: {health_checks: {passive: {fail_duration: 1h, max_fails: 1}}}
`)
	wantStatus(t, "before", g.get(t, "/"), 200) // establishes an HTTP/2 connection, so that the backend's settings are known
	for range 3 {
		got := g.ask(t, "GET", "/", "", "X-Large", strings.Repeat("x", 10<<10))
		wantStatus(t, "with a large header", got, 400)
		wantStatus(t, "after it", g.get(t, "/"), 200)
	}
}
