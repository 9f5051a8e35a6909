package integration

import (
	"bufio"
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rgate/rgate/internal/testkit"
)

// endlessBackend serves streams without an end. Requests to /hold take until the client
// leaves.
type endlessBackend struct {
	*httptest.Server
	holding atomic.Int32
}

func startEndlessBackend(t testing.TB) *endlessBackend {
	b := new(endlessBackend)
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	return b
}

func (b *endlessBackend) dial() string { return b.Listener.Addr().String() }

func (b *endlessBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/events":
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, "data: x\n\n"); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			time.Sleep(20 * time.Millisecond)
		}
	case "/hold":
		b.holding.Add(1)
		defer b.holding.Add(-1)
		<-r.Context().Done()
	case "/switch":
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
		_, _ = io.Copy(conn, buffered)
	default:
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprintf(w, "%d bytes", n)
	}
}

// rawStart opens a connection, sends text, and reads the response's header if want is not
// empty, which the header must contain.
func rawStart(t testing.TB, g *gateway, text, want string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", g.address())
	must(t, "dialing the gateway", err)
	t.Cleanup(func() { _ = conn.Close() })
	must(t, "setting a deadline", conn.SetDeadline(time.Now().Add(2*patience)))
	_, err = io.WriteString(conn, text)
	must(t, "sending a request", err)
	reader := bufio.NewReader(conn)
	if want != "" {
		response, err := http.ReadResponse(reader, nil)
		if must(t, "reading the response", err); !strings.Contains(response.Status, want) {
			t.Fatalf("got %s, want %s", response.Status, want)
		}
	}
	return conn, reader
}

const switchToWebSocket = "GET /switch HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

// goingAway is a WebSocket close frame with the status 1001 (RFC 6455, section 7.4.1).
// Clients may also get the frame for the backend, which the backend sends back.
const goingAway = "\x88\x02\x03\xe9"

// endless opens requests that do not end by themselves: an event stream, an upload, a
// WebSocket, a request in flight and a queued request. It returns the readers of the
// event stream and of the WebSocket.
func (b *endlessBackend) endless(t testing.TB, g *gateway) (events, socket *bufio.Reader) {
	t.Helper()
	_, events = rawStart(t, g, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n", "200")
	rawStart(t, g, "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc", "")
	_, socket = rawStart(t, g, switchToWebSocket, "101")
	for range 2 {
		rawStart(t, g, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n", "")
	}
	testkit.Eventually(t, "one request is in flight and one is queued", func() bool {
		return b.holding.Load() == 1 && g.metric(t, "rgate_concurrency_queued") == 1
	})
	return events, socket
}

// endlessRoutes are two backends, of which the second one accepts one request at a time.
const endlessRoutes = `
operations: {path: /gateway}
routes: [{path_prefix: /, backend: web}, {path_prefix: /hold, backend: one}]
backends:
- {name: web, dial: ["$DIAL"]}
- {name: one, dial: ["$DIAL"], concurrency: {max: 1, queue: 10, queue_timeout: 1m}}
`

const endlessCaddyfile = `{
	admin localhost:$ADMIN
	grace_period 2s
}
:$PORT {
	rgate {
		backend web {
			dial $DIAL
		}
		backend one {
			dial $DIAL
			concurrency 1 10 1m
		}
		route / web
		route /hold one
	}
}
`

// One open event stream prevented the end of the process, and a second SIGTERM was
// ignored.
func TestF1OneEndlessStreamDoesNotPreventTheEndOfTheProcess(t *testing.T) {
	t.Parallel()
	const grace = 2 * time.Second
	const yaml = "listen: \":$PORT\"\nadmin: localhost:$ADMIN\ngrace_period: 2s" + endlessRoutes
	for name, tc := range map[string]struct {
		file, config string
		args         []string
		signal       syscall.Signal
	}{
		"YAML by rgate -c":       {"rgate.yaml", yaml, []string{"-c", "$FILE"}, syscall.SIGTERM},
		"YAML by rgate run":      {"rgate.yaml", yaml, []string{"run", "--config", "$FILE"}, syscall.SIGINT},
		"Caddyfile by rgate -c":  {"Caddyfile", endlessCaddyfile, []string{"-c", "$FILE"}, syscall.SIGINT},
		"Caddyfile by rgate run": {"Caddyfile", endlessCaddyfile, []string{"run", "--config", "$FILE"}, syscall.SIGTERM},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startEndlessBackend(t)
			g := launch(t, tc.file, strings.ReplaceAll(tc.config, "$DIAL", b.dial()), nil, tc.args...)
			events, socket := b.endless(t, g)
			signalled := time.Now()
			g.signal(t, tc.signal)
			n, _ := io.Copy(io.Discard, events)
			if served := time.Since(signalled); n == 0 || served < grace*9/10 {
				t.Errorf("the event stream ended %s after the signal, want %s", served, grace)
			}
			code := g.awaitExit(t)
			if took := time.Since(signalled); code != 0 || took > grace+5*time.Second {
				t.Errorf("the process exited with %d after %s, want 0 within %s", code, took, grace)
			}
			if got, _ := io.ReadAll(socket); !strings.Contains(string(got), goingAway) {
				t.Errorf("the WebSocket got %q, want a close frame with 1001", got)
			}
		})
	}
}

func TestF1EndlessStreamsOfAllVersionsDoNotPreventTheEnd(t *testing.T) {
	t.Parallel()
	const grace = 2 * time.Second
	b := startEndlessBackend(t)
	g := startAllVersions(t, "rgate {\nbackend web {\ndial "+b.dial()+"\n}\nroute / web\n}", "\tgrace_period 2s")
	for _, c := range g.versions(t) {
		response, err := c.Client.Get(c.base + "/events")
		must(t, c.name+": asking for events", err)
		defer response.Body.Close()
		if _, err := response.Body.Read(make([]byte, 1)); err != nil {
			t.Errorf("%s: reading an event: %v", c.name, err)
		}
	}
	signalled := time.Now()
	g.signal(t, syscall.SIGTERM)
	code := g.awaitExit(t)
	if took := time.Since(signalled); code != 0 || took < grace || took > grace+5*time.Second {
		t.Errorf("the process exited with %d after %s, want 0 after %s", code, took, grace)
	}
}

// A second signal ends the process immediately. Usage and the events of quotas are
// recorded at the first one, because the process may be killed before the grace period
// ends.
func TestF1UsageAndQuotasAreRecordedAtTheSignal(t *testing.T) {
	t.Parallel()
	b := startEndlessBackend(t)
	const config = "bandwidth: {store: \"sqlite://$DIR/bandwidth.db\", flush_interval: 10s}\nquota: {name: all, ingress: 1MB}\n"
	// stored returns the bytes and the thresholds in the database of a gateway.
	stored := func(g *gateway) (ingress, thresholds int) {
		db, err := sql.Open("sqlite", "file:"+strings.TrimSuffix(g.file, "rgate.yaml")+"bandwidth.db?mode=ro&_pragma=busy_timeout(5000)")
		must(t, "opening the database", err)
		defer db.Close()
		_ = db.QueryRow("SELECT COALESCE(SUM(ingress), 0) FROM bandwidth_minute").Scan(&ingress) // the tables may not exist yet
		_ = db.QueryRow("SELECT COUNT(*) FROM quota_events").Scan(&thresholds)
		return ingress, thresholds
	}
	upload := func(t *testing.T, g *gateway) {
		if got := g.ask(t, "POST", "/x", strings.Repeat("x", 900_000)); got.body != "900000 bytes" {
			t.Fatalf("got %d %q", got.status, got.body)
		}
	}
	start := func(t *testing.T, options string) *gateway {
		return startGateway(t, config+options+strings.ReplaceAll(endlessRoutes, "$DIAL", b.dial()))
	}
	for first, second := range map[syscall.Signal]syscall.Signal{syscall.SIGTERM: syscall.SIGTERM, syscall.SIGINT: syscall.SIGTERM} {
		t.Run(first.String()+" and "+second.String(), func(t *testing.T) {
			t.Parallel()
			g := start(t, "")
			rawStart(t, g, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n", "200")
			upload(t, g)
			g.signal(t, first)
			testkit.Eventually(t, "the usage and the thresholds are in the database", func() bool {
				ingress, thresholds := stored(g)
				return ingress == 900_000 && thresholds == 2
			})
			if g.responds() {
				t.Error("the gateway accepts connections after the signal")
			}
			g.signal(t, second)
			if code := g.awaitExit(t); code != 2 {
				t.Errorf("the process exited with %d after the second signal, want 2", code)
			}
		})
	}
	t.Run("the last requests", func(t *testing.T) {
		t.Parallel()
		g := start(t, "")
		const size = 800_000
		conn, reader := rawStart(t, g, fmt.Sprintf("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size), "")
		_, err := io.WriteString(conn, strings.Repeat("x", size/2))
		must(t, "sending the first half", err)
		g.signal(t, syscall.SIGTERM)
		testkit.Eventually(t, "the gateway accepts no more connections", func() bool { return !g.responds() })
		_, err = io.WriteString(conn, strings.Repeat("x", size/2))
		must(t, "sending the second half", err)
		response, err := http.ReadResponse(reader, nil)
		must(t, "reading the response", err)
		if body, _ := io.ReadAll(response.Body); string(body) != "800000 bytes" {
			t.Errorf("got %q, want 800000 bytes", body)
		}
		if code := g.awaitExit(t); code != 0 {
			t.Errorf("the process exited with %d", code)
		}
		if ingress, thresholds := stored(g); ingress != size || thresholds != 1 {
			t.Errorf("the database has %d bytes and %d thresholds, want %d and 1", ingress, thresholds, size)
		}
	})
}

// A request that began before a reload has the whole grace period, even if the reload was
// earlier than that.
func TestF1RequestsOfReplacedConfigurationsComplete(t *testing.T) {
	t.Parallel()
	b := startEndlessBackend(t)
	const grace = 3 * time.Second
	yaml := "admin: localhost:$ADMIN\ngrace_period: 3s" + strings.ReplaceAll(endlessRoutes, "$DIAL", b.dial())
	g := startGateway(t, yaml)
	upload := func() (finish func() string) {
		conn, reader := rawStart(t, g, "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345", "")
		testkit.Eventually(t, "the upload is in flight", func() bool { return g.metric(t, "rgate_requests_in_flight") >= 1 })
		return func() string {
			_, _ = io.WriteString(conn, "67890")
			response, err := http.ReadResponse(reader, nil)
			if err != nil {
				return err.Error()
			}
			body, _ := io.ReadAll(response.Body)
			return string(body)
		}
	}
	finish := upload()
	rawStart(t, g, switchToWebSocket, "101") // not waited for
	g.write(t, yaml+"default_response: {body: replaced}\n")
	g.reload(t)
	reloaded := time.Now()
	testkit.Eventually(t, "the grace period of the reload is over", func() bool { return time.Since(reloaded) > grace+100*time.Millisecond })
	g.signal(t, syscall.SIGTERM)
	testkit.Eventually(t, "the gateway accepts no more connections", func() bool { return !g.responds() })
	signalled := time.Now()
	testkit.Eventually(t, "half a second has passed", func() bool { return time.Since(signalled) > 500*time.Millisecond })
	if got := finish(); got != "10 bytes" {
		t.Errorf("the upload got %q, want the backend's response", got)
	}
	if code := g.awaitExit(t); code != 0 {
		t.Errorf("the process exited with %d", code)
	}
	if took := time.Since(signalled); took > grace-500*time.Millisecond {
		t.Errorf("the process ended %s after the signal: it waited for the WebSocket", took)
	}
}

// The gateway was ready until it accepted no more connections.
func TestF2GatewayIsNotReadyFromTheSignalOn(t *testing.T) {
	t.Parallel()
	const delay = 3 * time.Second
	b := startEndlessBackend(t)
	for name, start := range map[string]func(t *testing.T) *gateway{
		"YAML": func(t *testing.T) *gateway {
			return startGateway(t, "shutdown_delay: 3s"+strings.ReplaceAll(endlessRoutes, "$DIAL", b.dial()))
		},
		"Caddyfile": func(t *testing.T) *gateway {
			return launch(t, "Caddyfile", strings.NewReplacer("grace_period", "shutdown_delay 3s\n\tgrace_period", "rgate {", "rgate {\noperations", "$DIAL", b.dial()).
				Replace(endlessCaddyfile), nil, "run", "--config", "$FILE")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t)
			g.client.Transport.(*http.Transport).DisableKeepAlives = true // new connections are accepted
			admin := func(path string) int {
				got, err := g.client.Get(g.adminURL("/rgate/gateway" + path))
				if must(t, "asking the admin API", err); got.Body.Close() != nil {
					t.Error("closing the response failed")
				}
				return got.StatusCode
			}
			for range 2 {
				if ready, live := g.get(t, "/gateway/health/ready"), g.get(t, "/gateway/health/live"); ready.status != 200 || live.status != 200 || admin("/health/ready") != 200 {
					t.Errorf("before the signal: ready %d, live %d", ready.status, live.status)
				}
				g.reload(t)
			}
			signalled := time.Now()
			g.signal(t, syscall.SIGTERM)
			testkit.Eventually(t, "the gateway is not ready", func() bool { return g.get(t, "/gateway/health/ready").status == 503 })
			ready := g.get(t, "/gateway/health/ready")
			if ready.status != 503 || ready.body != "{\"status\":\"stopping\"}\n" || admin("/health/ready") != 503 {
				t.Errorf("ready: got %d %q, want 503", ready.status, ready.body)
			}
			if live, got := g.get(t, "/gateway/health/live"), g.get(t, "/x"); live.status != 200 || got.status != 200 {
				t.Errorf("during the delay: live %d, another request %d, want 200", live.status, got.status)
			}
			code := g.awaitExit(t)
			if took := time.Since(signalled); code != 0 || took < delay {
				t.Errorf("the process exited with %d after %s, want 0 after %s", code, took, delay)
			}
		})
	}
}
