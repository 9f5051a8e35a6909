// Package stream fuzzes a gateway in the test process and compares it with a strict
// parser. The backend must receive only requests of the stream, and each request has at
// most one response.
package stream

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	_ "github.com/rgate/rgate"
)

// patience is the timeout for a stream, which only a hanging gateway exceeds. It is below
// the 10 s after which package testing reports a hanging fuzz target.
const patience = 8 * time.Second

// FuzzRequestStream sends valid and invalid streams of requests to a gateway. It compares
// the responses and the requests at the backend with the result of a strict parser.
func FuzzRequestStream(f *testing.F) {
	for _, program := range seeds() {
		f.Add(program)
	}
	gateway := startGateway(f)
	f.Fuzz(func(t *testing.T, program []byte) {
		stream := interpret(program)
		requests, tail := parse(stream)
		if !tail {
			// The added request closes the connection and must get its own response.
			stream += "GET /end HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"
			requests, tail = parse(stream)
		}
		got := gateway.send(t, stream, requests, tail)
		if message := compare(requests, tail, got); message != "" {
			t.Errorf("%s\nsent %.4000q\nrequests %.2000v\ngot %v", message, stream, requests, got)
		}
	})
}

// seeds returns programs that use each part of a request, and some with several requests.
func seeds() (programs [][]byte) {
	for method := range methods {
		for path := range paths {
			// One body with Content-Length and one chunked, with varying sizes.
			size := byte((method + path) % len(sizes))
			programs = append(programs, []byte{byte(method), byte(path), 0, 8 | size, 0, 0, 0, 0}, []byte{byte(method), byte(path), 0, 16 | size, 0, 0, 0, 0, 0})
		}
	}
	for extra := range extras {
		for framing := range byte(3) {
			programs = append(programs, []byte{1, 0, byte(extra), framing<<3 | 3, 0, 0, 0, 0}, []byte{1, 1, byte(extra), framing<<3 | 6, 0, 0, 0, 0})
		}
	}
	for end := range ends {
		for path := range paths {
			programs = append(programs, []byte{1, byte(path), 0, 16 | 4, byte(end), 0, 0, 0, 0})
		}
	}
	for version := range versions {
		programs = append(programs, []byte{1, 0, byte(12+version) << 4, 8 | 2, 0, 0, 0, 0}, []byte{1, 0, byte(12+version)<<4 | 2, 16 | 2, 0, 0, 0, 0, 0})
	}
	raw := func(text string) []byte { return append([]byte{255, byte(len(text))}, text...) }
	for _, text := range []string{
		"POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "\r\n\r\n" + inner, inner + "\r\n" + inner,
		"POST /open HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n29\r\n" + inner + "\r\n0\r\n\r\n",
		"GET /open HTTP/1.1\nHost: a\n\n", "GET /open\r\n\r\n", "GET /open?a b HTTP/1.1\r\nHost: a\r\n\r\n", "GET /open/a|b?c=%zz HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		programs = append(programs, slices.Concat(raw(text), []byte{0, 0, 0, 0}), slices.Concat([]byte{1, 0, 0, 8 | 3}, raw(text)))
	}
	for cut := range byte(60) {
		programs = append(programs, []byte{0, 0, 0, 0, 1, 5, 0, 16 | 3, 0, 254, cut * 4})
	}
	return programs
}

// outcome is the observed result of a stream.
type outcome struct {
	responses []response
	received  []received // requests at the backend
	hung      bool
}

type response struct {
	status  int
	target  string // request target in the backend's response; empty if the gateway responded
	closing bool
}

type received struct{ method, target, body string }

// compare returns a description of the first violation, or an empty string.
func compare(requests []message, tail bool, got outcome) string {
	most := len(requests)
	if tail && (most == 0 || requests[most-1].complete) {
		most++ // the response to a malformed request
	}
	switch {
	case got.hung:
		return "the gateway neither responds nor closes the connection"
	case len(got.responses) > most:
		return fmt.Sprintf("%d responses to %d requests", len(got.responses), most)
	case !tail && len(got.responses) < most && (len(got.responses) == 0 || !got.responses[len(got.responses)-1].closing):
		return fmt.Sprintf("%d responses to %d requests, and the last one does not say that the connection ends", len(got.responses), most)
	}
	for i, response := range got.responses {
		if response.target != "" && (i >= len(requests) || response.target != originForm(requests[i].target)) {
			return fmt.Sprintf("response %d is one to %s", i, response.target)
		}
	}
	// Aborted requests may reach the backend late, so the order is not compared.
	taken := make([]bool, len(requests))
	for _, arrived := range got.received {
		matches := func(i int) bool {
			return arrived.method == requests[i].method && arrived.target == originForm(requests[i].target) && strings.HasPrefix(requests[i].body, arrived.body)
		}
		found := -1
		for i := range requests {
			if found < 0 && matches(i) && (!taken[i] || mayBeRepeated(requests[i])) {
				found = i
			}
		}
		if found < 0 {
			return fmt.Sprintf("the backend received %.200q, which the stream did not send", fmt.Sprint(arrived))
		}
		taken[found] = true
	}
	return ""
}

// mayBeRepeated reports whether a request may reach a backend twice. This holds for safe
// methods if the body is empty or incomplete (RFC 9112, section 6.1).
func mayBeRepeated(request message) bool {
	return (request.body == "" || !request.complete) && slices.Contains([]string{"GET", "HEAD", "OPTIONS"}, request.method)
}

// originForm returns a target in origin-form, as sent to the backend (RFC 9112, section
// 3.2.1).
func originForm(target string) string {
	if _, rest, ok := strings.Cut(target, "://"); ok && !strings.HasPrefix(target, "/") {
		if slash := strings.IndexByte(rest, '/'); slash >= 0 {
			return rest[slash:]
		}
		if query := strings.IndexByte(rest, '?'); query >= 0 {
			return "/" + rest[query:]
		}
		return "/"
	}
	return target
}

// gateway is a gateway in the test process.
type gateway struct {
	address string
	clients atomic.Uint32

	mu       sync.Mutex
	arrivals map[string][]*received // by client address. The map and the values are guarded by mu.
}

func startGateway(t testing.TB) *gateway {
	g := &gateway{arrivals: make(map[string][]*received)}
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = backend.Close() })
	go g.serveBackend(backend)
	reserved, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.address = reserved.Addr().String()
	_ = reserved.Close()
	const key = "53336a676c64c1396553b2b7c92f38126768827c93b64d9142069c10eda7a721"
	routes := []any{
		map[string]any{"path_prefix": "/open", "backend": "b"},
		map[string]any{"path_prefix": "/early", "backend": "b"},
		map[string]any{"path_prefix": "/keep", "backend": "b"},
		map[string]any{"path_prefix": "/die", "backend": "b"},
		map[string]any{"path_prefix": "/get", "backend": "b", "methods": []string{"GET"}},
		map[string]any{"path_prefix": "/key", "backend": "b", "handle": []any{
			map[string]any{"handler": "rgate_api_key", "keys": []any{map[string]any{"name": "alice", "sha256": key}}},
		}},
		map[string]any{"path_prefix": "/small", "backend": "b", "handle": []any{map[string]any{"handler": "rgate_security", "max_body": 1000}}},
	}
	config, err := json.Marshal(map[string]any{
		"admin":   map[string]any{"disabled": true, "config": map[string]any{"persist": false}},
		"logging": map[string]any{"logs": map[string]any{"default": map[string]any{"writer": map[string]any{"output": "discard"}}}},
		"apps": map[string]any{"http": map[string]any{"servers": map[string]any{"stream": map[string]any{
			"listen": []string{g.address}, "automatic_https": map[string]any{"disable": true},
			"routes": []any{map[string]any{"handle": []any{map[string]any{
				"handler": "rgate", "routes": routes,
				"backends": []any{map[string]any{"name": "b", "dial": []string{backend.Addr().String()}}},
			}}}},
		}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caddy.Stop() })
	return g
}

// send sends a stream over a new connection and reads the responses.
func (g *gateway) send(t *testing.T, stream string, requests []message, tail bool) (got outcome) {
	n := g.clients.Add(1)
	ip := netip.AddrFrom4([4]byte{127, byte(1 + n>>16%254), byte(n >> 8), byte(n)}).String()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, client := range []string{ip, ""} { // malformed requests have no client address
			for _, one := range g.arrivals[client] {
				got.received = append(got.received, *one)
			}
			delete(g.arrivals, client)
		}
	}()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(conn, stream)
	}()
	defer func() { <-sent }()
	defer func() {
		_ = conn.(*net.TCPConn).SetLinger(0) // RST avoids TIME_WAIT
		_ = conn.Close()
	}()
	complete := len(requests)
	if complete > 0 && !requests[complete-1].complete {
		complete--
	}
	reader := bufio.NewReader(conn)
	for {
		if len(got.responses) == complete && tail {
			<-sent
			_ = conn.(*net.TCPConn).CloseWrite()
		}
		method := http.MethodGet
		if len(got.responses) < len(requests) {
			method = requests[len(got.responses)].method
		}
		one, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err == nil && one.StatusCode == http.StatusContinue {
			continue
		}
		var body []byte
		if err == nil {
			body, err = io.ReadAll(one.Body)
			target := strings.TrimPrefix(string(body), "target ")
			if target == string(body) {
				target = ""
			}
			got.responses = append(got.responses, response{one.StatusCode, target, one.Close})
		}
		if err != nil {
			var timeout net.Error
			got.hung = errors.As(err, &timeout) && timeout.Timeout()
			return got
		}
	}
}

// serveBackend responds to requests with their targets. The path selects whether it
// responds before it reads the body, or closes the connection.
func (g *gateway) serveBackend(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			reader := bufio.NewReader(conn)
			for g.respond(conn, reader) {
			}
		}()
	}
}

func (g *gateway) respond(conn net.Conn, reader *bufio.Reader) bool {
	request, err := http.ReadRequest(reader)
	if err != nil {
		var network net.Error
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &network) {
			g.arrived("", received{method: "no request", target: err.Error()})
		}
		return false
	}
	one := g.arrived(request.Header.Get("X-Forwarded-For"), received{method: request.Method, target: request.RequestURI})
	text := "target " + request.RequestURI
	sent := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	if request.Method == http.MethodHead {
		sent = fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(text))
	}
	switch {
	case strings.HasPrefix(request.URL.Path, "/early"):
		_, _ = io.WriteString(conn, sent)
		return false
	case strings.HasPrefix(request.URL.Path, "/die"):
		return false
	case strings.HasPrefix(request.URL.Path, "/keep"):
		_, err = io.WriteString(conn, sent)
		_, bodyErr := io.Copy(io.Discard, request.Body)
		return err == nil && bodyErr == nil
	}
	body, err := io.ReadAll(request.Body)
	g.mu.Lock()
	one.body = string(body) // may arrive after later requests if the request was aborted
	g.mu.Unlock()
	if err != nil {
		return false
	}
	_, err = io.WriteString(conn, sent)
	return err == nil
}

func (g *gateway) arrived(client string, one received) *received {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.arrivals[client] = append(g.arrivals[client], &one)
	return &one
}
