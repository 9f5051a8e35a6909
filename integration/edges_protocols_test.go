package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rgate/rgate/internal/testkit"
)

// edgeBackend is an HTTP/1.1 backend that responds with the request it received. Suffixes
// of the path select faulty behavior.
type edgeBackend struct {
	*httptest.Server
	mu   sync.Mutex
	seen map[string]int // number of requests by method and target. Guarded by mu.
}

// reached describes the request that the backend received.
type reached struct {
	Method, Body string
	Target       []byte // may be invalid UTF-8
	Length       int64
	Chunked      bool
	Header       http.Header
}

func startEdgeBackend(t *testing.T) *edgeBackend {
	b := &edgeBackend{seen: make(map[string]int)}
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	t.Cleanup(func() { b.CloseClientConnections() })
	return b
}

func (b *edgeBackend) dial() string { return b.Listener.Addr().String() }

// count returns the number of requests whose method and target contain text.
func (b *edgeBackend) count(text string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for request, times := range b.seen {
		if strings.Contains(request, text) {
			n += times
		}
	}
	return n
}

func (b *edgeBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	key := r.Method + " " + r.RequestURI
	b.seen[key]++
	first := b.seen[key] == 1
	b.mu.Unlock()
	switch _, does, _ := strings.Cut(r.URL.Path, "~"); {
	case does == "switch" && r.Header.Get("Upgrade") != "":
		b.raw(w, true, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\n\r\n")
	case does == "unasked":
		b.raw(w, false, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	case does == "mismatch":
		b.raw(w, false, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
	case does == "000", does == "099":
		b.raw(w, false, "HTTP/1.1 "+does+" Odd\r\nContent-Length: 2\r\n\r\nhi")
	case does == "atonce":
		b.raw(w, false, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
	case does == "early":
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, "late")
	case does == "flaky" && first:
		b.raw(w, false, "")
	case does == "slow":
		_, _ = io.Copy(io.Discard, r.Body) // the server detects a closed connection only after the body is read
		select {
		case <-r.Context().Done():
		case <-time.After(patience):
		}
	default:
		if does == "cached" {
			w.Header().Set("Cache-Control", "max-age=60")
		}
		body, _ := io.ReadAll(r.Body)
		encoded, _ := json.Marshal(reached{r.Method, string(body), []byte(r.RequestURI), r.ContentLength, r.TransferEncoding != nil, r.Header})
		_, _ = w.Write(encoded)
	}
}

// raw sends text instead of a response. If echoes is set, it then echoes what it
// receives.
func (b *edgeBackend) raw(w http.ResponseWriter, echoes bool, text string) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, text)
	if echoes {
		_, _ = io.Copy(conn, buffered)
	}
}

// reach decodes the response of edgeBackend.
func reach(t testing.TB, what string, got response) (seen reached) {
	t.Helper()
	if err := json.Unmarshal([]byte(got.body), &seen); got.status != 200 || err != nil {
		t.Errorf("%s: got %d with %q, want the backend's response", what, got.status, got.body)
	}
	return seen
}

// edgeSite returns a site in which a plain policy and a gateway share one backend.
// Without a default response, the gateway routes all other requests to the backend.
func edgeSite(b *edgeBackend, options string) string {
	if !strings.Contains(options, "default_response") {
		options += "\nroute / web"
	}
	return strings.NewReplacer("$DIAL", b.dial(), "$OPTIONS", options).Replace(`
	handle /plain/* {
		rgate_request_id
		reverse_proxy $DIAL
	}
	handle {
		rgate {
			backend web {
				dial $DIAL
			}
			$OPTIONS
		}
	}`)
}

// smuggled is a request body that a backend would parse as another request.
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

func TestA3OnlyWebSocketsAreTunnels(t *testing.T) {
	t.Parallel()
	b := startEdgeBackend(t)
	g := startAllVersions(t, edgeSite(b, `route /get web {
		methods GET
	}`), "")
	for version, conn := range g.rawVersions(t) {
		connect := func(protocol, path string) rawStream {
			return conn.open(t, false, ":method", "CONNECT", ":protocol", protocol, ":scheme", "https", ":authority", "localhost", ":path", path,
				"sec-websocket-version", "13")
		}
		for _, path := range []string{"/x", "/get/x", "/plain/x", "/stats"} {
			for _, protocol := range []string{"connect-udp", "webtransport", "h2c", "HTTP"} {
				stream := connect(protocol, path)
				stream.write(t, smuggled, true)
				// RFC 9220, section 3, recommends 501 for HTTP/3. HTTP/2 (RFC 8441) gets
				// the same status.
				if got := readResponse(t, stream); got.status != http.StatusNotImplemented {
					t.Errorf("%s: CONNECT of %s for %s got %d, want 501", version, path, protocol, got.status)
				}
			}
		}
		stream := conn.open(t, false, ":method", "CONNECT", ":authority", "localhost:80")
		stream.write(t, smuggled, true)
		if got := readResponse(t, stream); got.status != http.StatusMethodNotAllowed {
			t.Errorf("%s: CONNECT got %d, want 405", version, got.status)
		}

		for _, protocol := range []string{"websocket", "WebSocket"} { // RFC 9110, section 7.8: compared case-insensitively
			for _, path := range []string{"/get/~switch", "/other/~switch", "/plain/~switch"} {
				stream = connect(protocol, path)
				if got, ended := readHeader(t, stream); got.status != 200 || ended {
					t.Errorf("%s: a WebSocket to %s got %d, want 200", version, path, got.status)
					continue
				}
				for _, message := range []string{"hello", smuggled} {
					stream.write(t, message, false)
					if got := readData(t, stream, len(message)); got != message {
						t.Errorf("%s: %q came back from %s as %q", version, message, path, got)
					}
				}
				stream.write(t, "", true)
			}
		}
	}
	for _, target := range []string{"localhost:80", "/x", "/plain/x"} {
		text := g.raw(t, "CONNECT "+target+" HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"+
			fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(smuggled), smuggled))
		if !strings.HasPrefix(text, "HTTP/1.1 405 ") {
			t.Errorf("CONNECT %s over HTTP/1.1 got %q, want 405", target, text)
		}
	}
	if b.count("smuggled") > 0 || b.count("CONNECT") > 0 {
		t.Errorf("the backend has seen %v", sortedKeys(b.seen))
	}
	if n := b.count("GET /get/~switch"); n != 6 {
		t.Errorf("the backend has seen %d WebSockets of 6", n)
	}
	testkit.Eventually(t, "the ends of the WebSockets are noticed", func() bool { return g.metric(t, "rgate_requests_total", "code", "101") == 12 })
}

// rawOffer sends an HTTP/1 request with the given fields. It returns the response and,
// after 101, the open connection.
func rawOffer(t testing.TB, g *gateway, version, target string, fields ...string) (got response, conn net.Conn, reader *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", g.address())
	must(t, "dialing the gateway", err)
	t.Cleanup(func() { _ = conn.Close() })
	must(t, "setting a deadline", conn.SetDeadline(time.Now().Add(patience)))
	_, err = fmt.Fprintf(conn, "GET %s %s\r\nHost: x\r\n%s\r\n\r\n", target, version, strings.Join(fields, "\r\n"))
	must(t, "sending a request", err)
	reader = bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	must(t, "reading the response", err)
	got.status, got.header = response.StatusCode, response.Header
	if got.status != http.StatusSwitchingProtocols {
		body, err := io.ReadAll(response.Body)
		must(t, "reading the body", err)
		got.body = string(body)
	}
	return got, conn, reader
}

func TestA4OnlyNamedUpgradesArePassed(t *testing.T) {
	t.Parallel()
	b := startEdgeBackend(t)
	g := startAllVersions(t, edgeSite(b, `backend more {
		dial `+b.dial()+`
		upgrades websocket tailscale-control-protocol
	}
	route /more more
	route /keyed web {
		api_key {
			keys alice `+hashOfKey("key")+`
		}
	}`), "")
	for _, tc := range []struct {
		target, version string
		fields          []string
		status          int
		upgrade         string // the Upgrade header that the backend received or switched to
	}{
		{"/a/~switch", "HTTP/1.1", []string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"}, 200, ""},
		{"/a/~switch", "HTTP/1.1", []string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: H2C", "HTTP2-Settings: AAMAAABkAAQAAP__"}, 200, ""},
		{"/a/~switch", "HTTP/1.1", []string{"Connection: keep-alive, Upgrade", "Upgrade: SPDY/3.1, h2c"}, 200, ""},
		{"/a/~switch", "HTTP/1.1", []string{"Connection: HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"}, 200, ""},
		{"/a/~switch", "HTTP/1.1", []string{"Upgrade: websocket"}, 200, ""}, // Upgrade is not listed in Connection
		{"/a/~switch", "HTTP/1.0", []string{"Connection: Upgrade", "Upgrade: websocket"}, 200, ""},
		{"/a/~switch", "HTTP/1.1", []string{"Connection: Upgrade", "Upgrade: websocket"}, 101, "websocket"},
		{"/a/~switch", "HTTP/1.1", []string{"Connection: Upgrade", "Upgrade: h2c", "Upgrade: WebSocket"}, 101, "websocket"},
		{"/a/~switch", "HTTP/1.1", []string{"Connection: Upgrade", "Upgrade: tailscale-control-protocol"}, 200, ""},
		{"/more/~switch", "HTTP/1.1", []string{"Connection: Upgrade", "Upgrade: tailscale-control-protocol"}, 101, "tailscale-control-protocol"},
		{"/more/~switch", "HTTP/1.1", []string{"Connection: Upgrade", "Upgrade: h2c, websocket"}, 101, "websocket"},
		{"/more/~switch", "HTTP/1.1", []string{"Connection: Upgrade", "Upgrade: h2c"}, 200, ""},
		{"/keyed/~switch", "HTTP/1.1", []string{"Connection: Upgrade", "Upgrade: h2c"}, 401, ""},
		{"/plain/~switch", "HTTP/1.1", []string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"}, 200, ""},
		{"/plain/~switch", "HTTP/1.1", []string{"Connection: Upgrade", "Upgrade: TLS/1.2, HTTP/2.0"}, 200, ""},
		{"/plain/~switch", "HTTP/1.1", []string{"Connection: Upgrade", "Upgrade: websocket"}, 101, "websocket"},
		{"/plain/~switch", "HTTP/1.1", []string{"Connection: Upgrade", "Upgrade: docker"}, 101, "docker"},
	} {
		what := fmt.Sprint(tc.version, " ", tc.target, " ", tc.fields)
		got, conn, reader := rawOffer(t, g.gateway, tc.version, tc.target, append(tc.fields, "X-Kept: yes")...)
		switch {
		case got.status != tc.status:
			t.Errorf("%s: got %d, want %d", what, got.status, tc.status)
		case got.status == 200:
			seen := reach(t, what, got).Header
			if seen["Upgrade"] != nil || seen["Http2-Settings"] != nil || strings.Contains(strings.ToLower(seen.Get("Connection")), "upgrade") || seen.Get("X-Kept") != "yes" {
				t.Errorf("%s: the backend got %v", what, seen)
			}
		case got.status == 101:
			if got.header.Get("Upgrade") != tc.upgrade {
				t.Errorf("%s: switched to %q, want %q", what, got.header.Get("Upgrade"), tc.upgrade)
			}
			_, err := io.WriteString(conn, "hello")
			must(t, "sending", err)
			echo := make([]byte, 5)
			if _, err := io.ReadFull(reader, echo); err != nil || string(echo) != "hello" {
				t.Errorf("%s: got %q and %v through the tunnel", what, echo, err)
			}
		}
		_ = conn.Close()
	}
	log := g.output.String()
	for _, once := range []string{`"upgrade":"h2c","route":"/","`, `"upgrade":"spdy/3.1","route":"/","`, `"upgrade":"h2c","route":"/more","`, `"upgrade":"tailscale-control-protocol","route":"/","`} {
		if n := strings.Count(log, once); n != 1 {
			t.Errorf("%s is in the log %d times, want once", once, n)
		}
	}
	if strings.Contains(log, `"upgrade":"websocket"`) {
		t.Error("an offer that was passed is in the log as dropped")
	}
}

// If only the upgrade offer were dropped, the data would become the body of a GET
// request. Its 200 response would open a tunnel.
func TestA4WebSocketsThatTheBackendDoesNotNameAreRefusedOverHTTP2And3(t *testing.T) {
	t.Parallel()
	b := startEdgeBackend(t)
	g := startAllVersions(t, edgeSite(b, `backend other {
		dial `+b.dial()+`
		upgrades tailscale-control-protocol
	}
	route /other other`), "")
	for version, conn := range g.rawVersions(t) {
		stream := conn.open(t, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "localhost", ":path", "/other/~switch",
			"sec-websocket-version", "13")
		if got := readResponse(t, stream); got.status != http.StatusNotImplemented {
			t.Errorf("%s: got %d, want 501", version, got.status)
		}
	}
}

func TestA5TargetsWithFragmentsSpacesOrControlsAreRefused(t *testing.T) {
	t.Parallel()
	b := startEdgeBackend(t)
	g := startAllVersions(t, edgeSite(b, `route /admin web {
		match segment
		api_key {
			keys alice `+hashOfKey("key")+`
		}
	}`), "")
	for _, target := range []string{"/admin#", "/tenants/7#/open", "/a?b#c", "/#", "/plain/a#b", "/stats#", "http://x/a#b"} {
		if got := g.rawGet(t, target); got.status != http.StatusBadRequest {
			t.Errorf("%s over HTTP/1.1 got %d, want 400", target, got.status)
		}
	}
	for _, target := range []string{"/a%23b", "/a?b%23c", "/plain/a%23b", "/caf\xc3\xa9", "/\xff?\xff", "/a%20b", "/a|b{c}"} {
		if got := reach(t, target, g.rawGet(t, target)); string(got.Target) != target {
			t.Errorf("%s reached the backend as %s", target, got.Target)
		}
	}
	before := b.count("")
	for version, conn := range g.rawVersions(t) {
		for _, path := range []string{"/admin#", "/a?b#c", "/a b", "/a?b c", "/plain/a b", "/a ", "/plain/a#", "/a\tb", "/a\x01b", "/a\x7f", "/a?\x7f", "/a\rb", "/a\nb"} {
			got := readResponse(t, conn.open(t, true, ":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", path))
			// net/http and quic-go reset a stream whose header contains control
			// characters.
			if got.status != http.StatusBadRequest && !got.reset {
				t.Errorf("%s: %q got %d, want 400", version, path, got.status)
			}
		}
	}
	if n := b.count(""); n != before {
		t.Errorf("%d requests reached the backend: %v", n-before, sortedKeys(b.seen))
	}
	for version, conn := range g.rawVersions(t) {
		for _, path := range []string{"/a%23b", "/caf\xc3\xa9", "/a%20b?c%20d"} {
			got := readResponse(t, conn.open(t, true, ":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", path))
			if seen := reach(t, version+" "+path, got.response); string(seen.Target) != path {
				t.Errorf("%s: %s reached the backend as %s", version, path, seen.Target)
			}
		}
	}
}
