package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rgate/rgate/internal/testkit"
)

func TestB4SilentClientsOfStreamsAreKept(t *testing.T) {
	t.Parallel()
	const idle = 400 * time.Millisecond
	// bidi echoes its input. Except for gRPC calls, it sends the response header first.
	bidi := func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		w.Header().Set("Content-Type", "application/grpc")
		if r.Header.Get("Content-Type") != "application/grpc" {
			_ = control.Flush()
		}
		part := make([]byte, 64)
		for {
			n, err := r.Body.Read(part)
			if n > 0 {
				_, _ = w.Write(part[:n])
				_ = control.Flush()
			}
			if err != nil {
				return
			}
		}
	}
	old := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			bidi(w, r)
			return
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, buffered)
	})
	g := startAllVersions(t, strings.NewReplacer("$OLD", old, "$H2C", serveH2C(t, bidi), "$IDLE", idle.String()).Replace(`
	route {
		timeouts {
			read_timeout $IDLE
		}
		rgate {
			route /old old
			route /modern modern
			backend old {
				dial $OLD
			}
			backend modern {
				dial $H2C
				scheme h2c
			}
		}
	}
`), "")
	open := func(conn rawConn, path string, more ...string) rawStream {
		return conn.open(t, false, append([]string{":method", "POST", ":scheme", "https", ":authority", "localhost", ":path", path}, more...)...)
	}
	type call struct {
		what    string
		stream  rawStream
		headers bool // the response header is sent before the client sends anything
	}
	var calls []call
	var cut []call
	for version, conn := range g.rawVersions(t) {
		calls = append(calls,
			call{version + " gRPC", open(conn, "/modern", "content-type", "application/grpc", "te", "trailers"), false},
			call{version + " stream of HTTP/2", open(conn, "/modern"), true},
			call{version + " stream of HTTP/1.1", open(conn, "/old"), true},
			call{version + " WebSocket", conn.open(t, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "https",
				":authority", "localhost", ":path", "/old", "sec-websocket-version", "13"), true})
		cut = append(cut, call{version + " gRPC to a backend of HTTP/1.1", open(conn, "/old", "content-type", "application/grpc"), false})
	}
	for _, c := range calls {
		if c.headers {
			if got, ended := readHeader(t, c.stream); got.status != 200 || ended {
				t.Errorf("%s: got %d, want a response that begins", c.what, got.status)
			}
		}
	}
	<-time.After(3 * idle) // the clients send nothing
	for _, c := range calls {
		c.stream.write(t, "hello", false)
		if !c.headers {
			if got, ended := readHeader(t, c.stream); got.status != 200 || ended {
				t.Errorf("%s: got %d, want a response that begins", c.what, got.status)
			}
		}
		if got := readData(t, c.stream, 5); got != "hello" {
			t.Errorf("%s: got %q after a pause, want hello", c.what, got)
		}
	}
	for _, c := range cut {
		// The gateway reports its own errors to gRPC clients as grpc-status.
		if got := readResponse(t, c.stream); got.status == 200 && got.header.Get("Grpc-Status") == "" {
			t.Errorf("%s: got 200, want the limit to hold before a response", c.what)
		}
	}
	// The client ends its stream, and the backend responds by ending its own. Caddy's
	// reverse_proxy has a data race when it closes WebSockets over HTTP/2 and HTTP/3
	// itself.
	for _, c := range calls {
		c.stream.write(t, "", true)
		if got := readData(t, c.stream, 1); got != "" {
			t.Errorf("%s: got %q after the end, want nothing", c.what, got)
		}
	}
}

func TestB5AnAddressIsTriedAgainAfterTheInterval(t *testing.T) {
	t.Parallel()
	late := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	var dropped atomic.Int64
	drops := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		dropped.Add(1)
		panic(http.ErrAbortHandler)
	})
	g := startGateway(t, strings.NewReplacer("$LATE", late, "$DROPS", drops).Replace(`
routes: [{path_prefix: /, backend: late}, {path_prefix: /drops, backend: drops}, {path_prefix: /never, backend: never}]
backends:
  - {name: late, dial: ["$LATE"], proxy: {load_balancing: {try_duration: 15s, try_interval: 50ms}}}
  - {name: drops, dial: ["$DROPS"], proxy: {load_balancing: {try_duration: 300ms, try_interval: 50ms}}}
  - {name: never, dial: ["127.0.0.1:1"], proxy: {load_balancing: {try_duration: 300ms, try_interval: 50ms}}}
`))
	responses := make(chan response, 2)
	for _, method := range []string{"GET", "POST"} {
		request := g.request(t, method, "/", "")
		go func() {
			got, err := do(g.client, request)
			if err != nil {
				t.Errorf("%s: %v", method, err)
			}
			responses <- got
		}()
	}
	<-time.After(500 * time.Millisecond) // the address refuses connections until then
	var posts atomic.Int64
	listener, err := net.Listen("tcp", late)
	must(t, "listening at last", err)
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			posts.Add(1)
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	for range 2 {
		wantStatus(t, "a container that listens late", <-responses, 200)
	}
	if posts.Load() != 1 {
		t.Errorf("the POST was sent %d times", posts.Load())
	}
	wantStatus(t, "a POST that is lost", g.ask(t, "POST", "/drops", "body"), 503)
	if dropped.Load() != 1 {
		t.Errorf("a POST that is lost was sent %d times", dropped.Load())
	}
	wantDown(t, "an address that never listens", g.get(t, "/never"))
}

func TestB6RestartedContainerStartsClosed(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{networks: []string{makeNetwork(t, "alone")}}) // prevents other containers from taking its address
	g := startGateway(t, `
routes: [{path_prefix: /, backend: web}]
backends: [{name: web, match_labels: {app_name: $APP}, circuit_breaker: {failures: 2, recovery: 1h, per_container: true}}]
`)
	g.await(t, "web", 1)
	for range 2 {
		wantStatus(t, "a failure", g.get(t, "/?status=500"), 500)
	}
	wantStatus(t, "an open breaker", g.get(t, "/"), 503)
	before := web.ip
	web.restart(t)
	web.awaitPort(t, 8080)
	testkit.Eventually(t, "the container that was started again gets requests", func() bool { return g.get(t, "/").status == 200 })
	if web.ip != before {
		t.Logf("the container has another address, %s after %s: this proves less than it could", web.ip, before)
	}
	if got := g.metric(t, "rgate_circuit_breaker_open_containers", "backend", "web"); got != 0 && web.ip == before {
		t.Errorf("%v containers are open, want none", got)
	}
}

func TestB7ZeroTurnsALimitOff(t *testing.T) {
	t.Parallel()
	backend := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(600 * time.Millisecond):
		case <-r.Context().Done():
		}
	})
	yaml := startGateway(t, strings.ReplaceAll(`
server: {timeouts: {read_header: 0s, read_body_idle: 0s, write_idle: 0s, idle: 0s}}
routes:
  - {path_prefix: /first, backend: first}
  - {path_prefix: /first/off, backend: first, timeouts: {first_byte: 0s}}
  - {path_prefix: /total, backend: total}
  - {path_prefix: /total/off, backend: total, timeouts: {total: 0s}}
  - {path_prefix: /dial, backend: dial}
backends:
  - {name: first, dial: [$DIAL], timeouts: {first_byte: 100ms}}
  - {name: total, dial: [$DIAL], timeouts: {total: 100ms}}
  - {name: dial, dial: [$DIAL], timeouts: {dial: 0s, first_byte: 0s, total: 0s}}
`, "$DIAL", backend))
	caddyfile := launch(t, "Caddyfile", strings.ReplaceAll(`{
	admin localhost:$ADMIN
}
:$PORT {
	rgate {
		route /first first
		route /first/off first {
			timeouts {
				first_byte 0s
			}
		}
		route /total total
		route /total/off total {
			timeouts {
				total 0s
			}
		}
		route /dial dial
		backend first {
			dial $DIAL
			timeouts {
				first_byte 100ms
			}
		}
		backend total {
			dial $DIAL
			timeouts {
				total 100ms
			}
		}
		backend dial {
			dial $DIAL
			timeouts {
				dial 0s
				first_byte 0s
				total 0s
			}
		}
	}
}
`, "$DIAL", backend), nil, "run", "--config", "$FILE")
	wantOff := func(g *gateway, what string) {
		t.Helper()
		var wg sync.WaitGroup
		for path, status := range map[string]int{"/first": 504, "/first/off": 200, "/total": 504, "/total/off": 200, "/dial": 200} {
			wg.Go(func() {
				if got := g.get(t, path); got.status != status {
					t.Errorf("%s: %s: got %d, want %d", what, path, got.status, status)
				}
			})
		}
		wg.Wait()
	}
	wantOff(yaml, "YAML")
	wantOff(caddyfile, "Caddyfile")
	config, err := do(caddyfile.client, mustRequest(t, caddyfile.adminURL("/config/")))
	must(t, "reading the configuration", err)
	if !strings.Contains(config.body, `"first_byte":0`) {
		t.Errorf("the JSON does not say 0: %s", config.body)
	}
	load, err := http.NewRequestWithContext(t.Context(), http.MethodPost, caddyfile.adminURL("/load"), strings.NewReader(config.body))
	must(t, "making a request", err)
	load.Header.Set("Content-Type", "application/json")
	load.Header.Set("Cache-Control", "must-revalidate")
	loaded, err := do(caddyfile.client, load)
	must(t, "loading JSON", err)
	wantStatus(t, "loading JSON", loaded, 200)
	wantOff(caddyfile, "JSON")

	server, err := do(yaml.client, mustRequest(t, yaml.adminURL("/config/apps/http/servers")))
	must(t, "reading the configuration", err)
	for _, option := range []string{"read_header_timeout", "read_idle_timeout", "write_idle_timeout", "idle_timeout"} {
		if !strings.Contains(server.body, `"`+option+`":-1`) { // Caddy replaces 0 with its default
			t.Errorf("%s is not off: %s", option, server.body)
		}
	}
	const warning = "a timeout of 0 disables the limit"
	if out := yaml.output.String(); strings.Count(out, warning) != 1 || !strings.Contains(out, `"/first/off"`) ||
		!strings.Contains(out, "server.timeouts.read_body_idle") {
		t.Errorf("the warnings do not name what is off: %s", out)
	}
}
