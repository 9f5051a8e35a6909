package integration

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// wirePatience is the timeout for running an entry.
const wirePatience = 10 * time.Second

// wireConfig is the gateway of all entries. It dials the backend at the client's address.
const wireConfig = `{
	admin localhost:$ADMIN
	auto_https off
	servers {
		trusted_proxies static 127.64.0.0/10
	}
}
(wire) {
	rgate {
		default_response "no route" 404
		route /open wire
		route /get wire {
			methods GET
		}
		route /key wire {
			api_key {
				keys {
					name alice
					sha256 53336a676c64c1396553b2b7c92f38126768827c93b64d9142069c10eda7a721
				}
			}
		}
		route /small wire {
			security {
				max_body 1KB
			}
		}
		route /limited wire {
			rate_limit 1 1h
		}
		route /denied wire {
			ip_filter {
				deny 127.0.0.0/8
			}
		}
		route /strip wire {
			strip_prefix
		}
		route /dead dead
		route / wire {
			hosts root.example
		}
		backend wire {
			dial {http.request.remote.host}:$BACKEND
		}
		backend dead {
			dial 127.0.0.1:1
		}
	}
}
http://:$PORT {
	import wire
}
https://:$TLS {
	tls $CERTIFICATE $KEY
	import wire
}
`

// wireGateway is the gateway with its backend.
type wireGateway struct {
	*allVersions
	backend *wireBackend
}

func startWireGateway(t *testing.T) *wireGateway {
	t.Helper()
	g := &wireGateway{backend: startWireBackend(t)}
	port := freePort(t)
	certificate, key := testCertificate(t)
	config := strings.NewReplacer("$BACKEND", strconv.Itoa(g.backend.port), "$TLS", strconv.Itoa(port),
		"$CERTIFICATE", certificate, "$KEY", key).Replace(wireConfig)
	g.allVersions = &allVersions{launch(t, "Caddyfile", config, nil, "run", "--config", "$FILE"), port}
	return g
}

// TestWire runs the entries of testdata/wire over each of their protocols.
func TestWire(t *testing.T) {
	t.Parallel()
	g := startWireGateway(t)
	for number, entry := range readWireEntries(t) {
		for i, protocol := range wireProtocols {
			if !slices.Contains(entry.expect.over, protocol) {
				continue
			}
			network := 1 + i
			if entry.expect.trusted {
				network += 64
			}
			run := &wireRun{wireEntry: entry, protocol: protocol, ip: fmt.Sprintf("127.%d.%d.%d", network, number/250, 1+number%250)}
			g.backend.add(run)
			t.Run(entry.name+"/"+protocol, func(t *testing.T) {
				t.Parallel()
				if protocol == "tcp" || protocol == "tls" {
					run.overConnection(t, g.dial(t, run))
				} else {
					run.overStreams(t, g.dialStreams(t, run))
				}
				run.checkBackend(t)
			})
		}
	}
}

// dial connects from the client address of the run.
func (g *wireGateway) dial(t *testing.T, run *wireRun) net.Conn {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(run.ip)}, Timeout: wirePatience}
	address := g.address()
	if run.protocol != "tcp" {
		address = g.tlsAddress()
	}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	must(t, "dialing the gateway", err)
	must(t, "setting a deadline", conn.SetDeadline(time.Now().Add(wirePatience)))
	t.Cleanup(func() { _ = conn.Close() })
	if run.protocol == "tcp" {
		return conn
	}
	alpn := "http/1.1"
	if run.protocol == "h2" {
		alpn = "h2"
	}
	secure := tls.Client(conn, clientTLS(alpn))
	must(t, "shaking hands", secure.HandshakeContext(t.Context()))
	return secure
}

// dialStreams opens an HTTP/2 or HTTP/3 connection from the client address of the run.
func (g *wireGateway) dialStreams(t *testing.T, run *wireRun) rawConn {
	t.Helper()
	if run.protocol == "h2" {
		return speakH2(t, g.dial(t, run))
	}
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(run.ip)})
	must(t, "opening a socket", err)
	transport := &quic.Transport{Conn: socket}
	t.Cleanup(func() {
		_ = transport.Close()
		_ = socket.Close()
	})
	conn, err := transport.Dial(t.Context(), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: g.tls}, clientTLS("h3"), nil)
	must(t, "dialing the gateway", err)
	return speakH3(t, conn)
}

// overConnection sends the requests over HTTP/1.1 and checks the responses.
func (run *wireRun) overConnection(t *testing.T, conn net.Conn) {
	heads := make(chan struct{}, len(run.expect.responses)) // one value per response header received
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		seen := 0
		for _, request := range run.requests {
			for ; seen < request.after; seen++ {
				if _, ok := <-heads; !ok {
					return
				}
			}
			// The gateway may already have closed the connection; the response is checked
			// separately.
			_, _ = io.WriteString(conn, request.bytes)
			if request.ends {
				_ = conn.(interface{ CloseWrite() error }).CloseWrite()
			}
		}
	}()
	defer func() { <-sent }()
	defer conn.Close()
	defer close(heads)

	reader := bufio.NewReader(conn)
	for i, want := range run.expect.responses {
		last := i == len(run.expect.responses)-1
		if !run.readResponse(t, reader, want, last, heads) {
			return
		}
	}
	run.checkConnection(t, conn, reader)
}

// readResponse reads a response and compares it. It reports whether more responses can
// follow.
func (run *wireRun) readResponse(t *testing.T, reader *bufio.Reader, want wireStatus, last bool, heads chan<- struct{}) bool {
	t.Helper()
	if slices.Contains(want.statuses, 0) {
		if _, err := reader.Peek(1); err == io.EOF {
			return true
		}
	}
	method := http.MethodGet
	if want.head {
		method = http.MethodHead
	}
	response, err := readResponseHeader(reader, method)
	for err == nil && response.StatusCode == http.StatusContinue && !slices.Contains(want.statuses, http.StatusContinue) &&
		strings.Contains(run.requests[0].bytes, "Expect:") {
		response, err = readResponseHeader(reader, method) // skips any number of 100 responses
	}
	if err != nil {
		t.Errorf("reading a response: %v, want %v", err, want.statuses)
		return false
	}
	if !slices.Contains(want.statuses, response.StatusCode) {
		t.Errorf("got %d, want %v", response.StatusCode, want.statuses)
		return false
	}
	heads <- struct{}{}
	if response.StatusCode == http.StatusSwitchingProtocols {
		return true
	}
	body, err := io.ReadAll(response.Body)
	if last && errors.Is(err, syscall.ECONNRESET) && run.expect.connection == "closed or reset" {
		return false
	}
	if (err != nil) != want.cut {
		t.Errorf("reading the body of %d: %d bytes and %v, want it cut: %t", response.StatusCode, len(body), err, want.cut)
		return false
	}
	if last {
		run.checkClient(t, response.Header, string(body))
	}
	return true
}

func readResponseHeader(reader *bufio.Reader, method string) (*http.Response, error) {
	response, err := http.ReadResponse(reader, &http.Request{Method: method})
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return response, err
}

// checkClient compares header and body of the last response.
func (run *wireRun) checkClient(t *testing.T, header http.Header, body string) {
	t.Helper()
	for _, field := range run.expect.clientFields {
		name, value, _ := strings.Cut(field, ": ")
		if got := header.Values(name); !slices.Equal(got, []string{value}) {
			t.Errorf("the response has %s: %q, want %q", name, got, value)
		}
	}
	for _, name := range run.expect.clientNoFields {
		if got := header.Values(name); len(got) > 0 {
			t.Errorf("the response has %s: %q, want none", name, got)
		}
	}
	if want := run.expect.clientBody; want != nil && body != *want {
		t.Errorf("the response has the body %q, want %q", body, *want)
	}
}

// checkConnection checks whether the connection is open or closed after the responses.
func (run *wireRun) checkConnection(t *testing.T, conn net.Conn, reader *bufio.Reader) {
	t.Helper()
	want := run.expect.connection
	if want == "open" || want == "any" {
		_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: gateway.example\r\n\r\n", wireProbe)
		response, err := readResponseHeader(reader, http.MethodGet)
		if err != nil {
			if want == "open" {
				t.Errorf("the connection is not open: %v", err)
			}
			return
		}
		body, err := io.ReadAll(response.Body)
		if response.StatusCode != http.StatusOK || err != nil || string(body) != wireProbeBody {
			t.Errorf("one request more has the response %d, %q and %v, which belongs to another one", response.StatusCode, body, err)
		}
		return
	}
	rest, err := io.ReadAll(reader)
	if err != nil || string(rest) != run.expect.tunnel {
		t.Errorf("at the end, got %q and %v, want %q and the end of the connection", rest, err, run.expect.tunnel)
	}
}

// overStreams sends the request over HTTP/2 or HTTP/3 and checks the response.
func (run *wireRun) overStreams(t *testing.T, conn rawConn) {
	t.Helper()
	fields, body := run.requests[0].fields()
	stream := conn.open(t, body == "", fields...)
	if body != "" {
		stream.write(t, body, true)
	}
	got := readResponse(t, stream)
	statuses := append(slices.DeleteFunc(got.informational, func(status int) bool { return status == http.StatusContinue }), got.status)
	if len(statuses) != len(run.expect.responses) {
		t.Errorf("got %v, want %v", statuses, run.expect.responses)
		return
	}
	for i, want := range run.expect.responses {
		if want.cut && statuses[i] == 0 {
			return // a reset of an HTTP/3 stream may discard the header
		}
		if !slices.Contains(want.statuses, statuses[i]) {
			t.Errorf("got %d, want %v", statuses[i], want.statuses)
			return
		}
		if i == len(statuses)-1 && statuses[i] != 0 && got.reset != want.cut {
			t.Errorf("the body is cut: %t after %q, want %t", got.reset, got.body, want.cut)
			return
		}
	}
	run.checkClient(t, got.header, got.body)
	if run.expect.connection == "open" {
		probe := readResponse(t, conn.open(t, true, ":method", "GET", ":scheme", "https", ":authority", "gateway.example", ":path", wireProbe))
		if probe.status != http.StatusOK || probe.body != wireProbeBody {
			t.Errorf("one request more has the response %d with %q", probe.status, probe.body)
		}
	}
}

// checkBackend compares the requests that the backend received.
func (run *wireRun) checkBackend(t *testing.T) {
	t.Helper()
	if t.Failed() {
		for _, request := range run.requests {
			t.Logf("sent %.2000q", request.bytes)
		}
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	var lines []string
	for _, request := range run.received {
		lines = append(lines, request.line)
	}
	rest := lines
	for _, want := range run.expect.backend {
		if len(rest) > 0 && rest[0] == want.text {
			rest = rest[1:]
		} else if !want.maybe {
			rest = []string{want.text}
			break
		}
	}
	if len(rest) > 0 {
		t.Errorf("the backend received %q, want %v", lines, run.expect.backend)
		return
	}
	if len(lines) == 0 {
		return
	}
	last := run.received[len(run.received)-1]
	for _, field := range run.expect.fields {
		field = strings.ReplaceAll(field, "$IP", run.ip)
		if !strings.Contains(last.header, "\r\n"+field+"\r\n") {
			t.Errorf("the backend received %q, want the field %q", last.header, field)
		}
	}
	for _, name := range run.expect.noFields {
		if strings.Contains(strings.ToLower(last.header), "\r\n"+strings.ToLower(name)+":") {
			t.Errorf("the backend received %q, want no field %s", last.header, name)
		}
	}
	if want := run.expect.body; want != nil && last.body != *want {
		t.Errorf("the backend received the body %q, want %q", last.body, *want)
	}
}
