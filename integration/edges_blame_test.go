package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"
)

// bridgeAddress is an address of this machine that is not on its loopback interface,
// for which package net/http never uses a proxy.
func bridgeAddress(t *testing.T) string {
	t.Helper()
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

// serveH2C runs a server of HTTP/2 without TLS and returns its address.
func serveH2C(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// statusInPath is a backend that responds with the status that ends the path.
func statusInPath(w http.ResponseWriter, r *http.Request) {
	status := 200
	_, _ = fmt.Sscanf(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:], "%d", &status)
	w.WriteHeader(status)
}

func TestA11NoProxyBeforeContainers(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	proxied := make(map[string]int)
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		proxied[r.URL.Path]++
		mu.Unlock()
		_, _ = io.WriteString(w, `{"keys":[]}`)
	})
	seen := func(path string) int {
		mu.Lock()
		defer mu.Unlock()
		return proxied[path]
	}
	here := bridgeAddress(t)
	backend := serveOn(t, here, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "direct") })
	startContainer(t, spec{})
	config := strings.NewReplacer("$DIAL", backend.Listener.Addr().String(), "$PROXY", proxy).Replace(`
routes:
  - {path_prefix: /container, backend: container}
  - {path_prefix: /dial, backend: dial}
  - {path_prefix: /limited, backend: dial, timeouts: {first_byte: 5s}}
  - {path_prefix: /own, backend: own}
  - {path_prefix: /jwt, backend: dial, jwt: {jwks_url: "http://jwks.invalid/keys", algorithms: [RS256]}}
backends:
  - {name: container, match_labels: {app_name: $APP}}
  - {name: dial, dial: ["$DIAL"]}
  - name: own
    dial: ["own.invalid:80"]
    proxy: {transport: {protocol: http, network_proxy: {from: url, url: "http://$PROXY"}}}
bandwidth: {store: "sqlite://$DIR/b.db", sources: [{name: kong, url: "http://source.invalid/metrics", interval: 1s}]}
`)
	env := []string{"HTTP_PROXY=http://" + proxy, "HTTPS_PROXY=http://" + proxy, "ALL_PROXY=http://" + proxy, "NO_PROXY="}
	g := startGateway(t, config, env...)
	g.await(t, "container", 1)
	wantAnswer(t, "a container", g.get(t, "/container"), 200)
	for _, target := range []string{"/dial", "/limited"} {
		if got := g.get(t, target); got.body != "direct" {
			t.Errorf("%s: got %d %q, want the backend itself", target, got.status, got.body)
		}
	}
	wantAnswer(t, "a backend with a proxy of its own", g.get(t, "/own"), 200)
	eventually(t, "the keys are read through the proxy", func() bool { return seen("/keys") > 0 })
	eventually(t, "the source is read through the proxy", func() bool { return seen("/metrics") > 0 })
	if seen("/own") != 1 || seen("/dial")+seen("/limited")+seen("/container") != 0 {
		t.Errorf("the proxy has seen %v", proxied)
	}
	if n := strings.Count(g.output.String(), "the proxy that the environment names is not used"); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
	old := startGateway(t, "legacy: [environment_proxy]\nroutes: [{path_prefix: /, backend: dial}]\nbackends: [{name: dial, dial: [\""+
		backend.Listener.Addr().String()+"\"]}]\n", env...)
	if got := old.get(t, "/"); got.body == "direct" || seen("/") != 1 {
		t.Errorf("legacy environment_proxy: got %q, and the proxy has seen %v", got.body, proxied)
	}
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
				wantAnswer(t, path, got, status)
			}
		}
		wantAnswer(t, path+" after what clients can provoke", g.get(t, path+"/200"), 200)
		// Nor do they hide failures that are in a row but for them.
		for _, status := range []int{500, 501, 503} {
			wantAnswer(t, path, g.get(t, fmt.Sprintf("%s/%d", path, status)), status)
		}
		wantAnswer(t, path+" after failures", g.get(t, path+"/200"), 503)
	}
	for range 2 {
		wantAnswer(t, "501", g.get(t, "/listed/501"), 501)
	}
	wantAnswer(t, "501 where it is listed", g.get(t, "/listed/200"), 503)
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
				got := readAnswer(t, conn.open(t, true, ":method", method, ":scheme", "http", ":authority", "localhost", ":path", path))
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
	// Bodies that are too large, malformed or cut off.
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
		wantAnswer(t, path+" after mistakes of clients", g.get(t, path), 200)
	}
	eventually(t, "the client that left is counted as such", func() bool {
		return strings.Contains(g.get(t, "/stats?by=route").body, "/web")
	})
	wantAnswer(t, "after the client that left", g.get(t, "/web/200"), 200)
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
			go func() { // reads no more than it must, like a server in front of a login
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
				if c.name == "HTTP/1.1" { // without a length
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
	// Where there is no response to be read, the backend is not blamed either.
	for range 3 {
		request := g.request(t, "POST", "/lost", upload)
		if got, err := do(g.client, request); err == nil && got.status != 503 {
			t.Errorf("without a response: got %d, want 503", got.status)
		}
	}
	wantAnswer(t, "after the uploads", g.get(t, "/"), 200)
}

func TestB4SilentClientsOfStreamsAreKept(t *testing.T) {
	t.Parallel()
	const idle = 400 * time.Millisecond
	// bidi repeats what it gets, and says so first unless it is a gRPC call.
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
		headers bool // the response begins before the client says anything
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
	<-time.After(3 * idle) // in which the clients say nothing
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
		// The gateway's own errors are grpc-status for such clients.
		if got := readAnswer(t, c.stream); got.status == 200 && got.header.Get("Grpc-Status") == "" {
			t.Errorf("%s: got 200, want the limit to hold before a response", c.what)
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
	answers := make(chan answer, 2)
	for _, method := range []string{"GET", "POST"} {
		request := g.request(t, method, "/", "")
		go func() {
			got, err := do(g.client, request)
			if err != nil {
				t.Errorf("%s: %v", method, err)
			}
			answers <- got
		}()
	}
	<-time.After(500 * time.Millisecond) // the address refuses meanwhile
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
		wantAnswer(t, "a container that listens late", <-answers, 200)
	}
	if posts.Load() != 1 {
		t.Errorf("the POST was sent %d times", posts.Load())
	}
	wantAnswer(t, "a POST that is lost", g.ask(t, "POST", "/drops", "body"), 503)
	if dropped.Load() != 1 {
		t.Errorf("a POST that is lost was sent %d times", dropped.Load())
	}
	wantDown(t, "an address that never listens", g.get(t, "/never"))
}

func TestB6RestartedContainerStartsClosed(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{networks: []string{makeNetwork(t, "alone")}}) // where its address is free for it again
	g := startGateway(t, `
routes: [{path_prefix: /, backend: web}]
backends: [{name: web, match_labels: {app_name: $APP}, circuit_breaker: {failures: 2, recovery: 1h, per_container: true}}]
`)
	g.await(t, "web", 1)
	for range 2 {
		wantAnswer(t, "a failure", g.get(t, "/?status=500"), 500)
	}
	wantAnswer(t, "an open breaker", g.get(t, "/"), 503)
	before := web.ip
	web.restart(t)
	web.awaitPort(t, 8080)
	eventually(t, "the container that was started again gets requests", func() bool { return g.get(t, "/").status == 200 })
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
	wantAnswer(t, "loading JSON", loaded, 200)
	wantOff(caddyfile, "JSON")

	server, err := do(yaml.client, mustRequest(t, yaml.adminURL("/config/apps/http/servers")))
	must(t, "reading the configuration", err)
	for _, option := range []string{"read_header_timeout", "read_idle_timeout", "write_idle_timeout", "idle_timeout"} {
		if !strings.Contains(server.body, `"`+option+`":-1`) { // Caddy takes 0 for its default
			t.Errorf("%s is not off: %s", option, server.body)
		}
	}
	const warning = "time limits written as 0 are off"
	if out := yaml.output.String(); strings.Count(out, warning) != 1 || !strings.Contains(out, `"/first/off"`) ||
		!strings.Contains(out, "server.timeouts.read_body_idle") {
		t.Errorf("the warnings do not name what is off: %s", out)
	}
}

func TestA10GatewayThatIsItsOwnBackendIs508(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var fields []string // of requests that reached a backend
	seen := func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		fields = append(fields, r.Header.Get("X-Gateway-Hops"))
	}
	var checked, relayed atomic.Int64
	auth := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Gateway-Hops") == "" {
			checked.Add(1)
		}
	})
	var beyond atomic.Pointer[url.URL] // the second gateway
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		relayed.Add(1)
		r.SetURL(beyond.Load())
	}}
	g := launch(t, "Caddyfile", strings.NewReplacer("$ECHO", serve(t, seen), "$AUTH", auth, "$RELAY", serve(t, forward.ServeHTTP)).Replace(`{
	admin localhost:$ADMIN
}
:$PORT {
	rgate {
		route /loop self
		route /shared self {
			coalesce
			cache 1m
		}
		route /fallback down
		route /echo echo {
			forward_auth $AUTH {
				uri /verify
			}
		}
		route /around relay
		backend self {
			dial 127.0.0.1:$PORT
		}
		backend down {
			dial 127.0.0.1:1
			around {
				fallback self
			}
		}
		backend echo {
			dial $ECHO
		}
		backend relay {
			dial $RELAY
		}
	}
}
`), nil, "run", "--config", "$FILE")
	second := startGateway(t, fmt.Sprintf(`
max_hops: 2
routes: [{path_prefix: /, backend: first}, {path_prefix: /self, backend: self}]
backends: [{name: first, dial: ["%s"]}, {name: self, dial: ["127.0.0.1:$PORT"]}]
`, g.address()))
	target, err := url.Parse(second.url(""))
	must(t, "parsing a URL", err)
	beyond.Store(target)

	total := func(g *gateway) int {
		var stats struct {
			Count struct{ Success, Error int } `json:"requests_count"`
		}
		must(t, "reading statistics", json.Unmarshal([]byte(g.get(t, "/stats").body), &stats))
		return stats.Count.Success + stats.Count.Error
	}
	for _, path := range []string{"/loop", "/shared", "/fallback"} {
		for _, body := range []string{"", strings.Repeat("x", 100_000)} {
			method := "GET"
			if body != "" {
				method = "POST"
			}
			before := total(g)
			got := g.ask(t, method, path, body)
			wantAnswer(t, method+" "+path, got, 508)
			if n := total(g) - before; n != 6 {
				t.Errorf("%s %s: one request became %d, want 6", method, path, n)
			}
			if got.header.Get("X-Gateway-Hops") != "" {
				t.Errorf("%s: the client is shown the field", path)
			}
		}
	}
	wantAnswer(t, "by way of another gateway", g.get(t, "/around"), 508)
	if n := relayed.Load(); n < 2 || n > 5 { // the second one lets a request pass twice
		t.Errorf("the relay has forwarded %d requests", n)
	}
	before := total(second)
	wantAnswer(t, "max_hops 2", second.get(t, "/self"), 508)
	if n := total(second) - before; n != 3 {
		t.Errorf("max_hops 2: one request became %d, want 3", n)
	}

	// Gateways one behind the other are no loop, whatever their number.
	chain := make([]string, 8)
	for i := range chain {
		chain[i] = fmt.Sprintf("%016x=1", i)
	}
	got := g.ask(t, "GET", "/echo", "", "X-Gateway-Hops", strings.Join(chain, ", ")+", nonsense, =, 1=1")
	wantAnswer(t, "behind eight gateways", got, 200)
	wantAnswer(t, "through two gateways", second.get(t, "/echo"), 200)
	mu.Lock()
	defer mu.Unlock()
	if len(fields) != 2 || strings.Count(fields[0], "=1") != 9 || strings.Contains(fields[0], "nonsense") || strings.Count(fields[1], "=1") != 2 {
		t.Errorf("backends have seen %q", fields)
	}
	if checked.Load() != 2 {
		t.Errorf("forward_auth was asked without the field %d times, want 2", checked.Load())
	}
}
