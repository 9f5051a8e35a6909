package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/websocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a backend and returns its address. stop shuts it down like SIGTERM and
// returns the error of run.
func start(t *testing.T, opts options) (address string, stop func() error) {
	t.Helper()
	if opts.grace == 0 {
		opts.grace = 5 * time.Second
	}
	opts.listen, opts.service = freeAddress(t), cmp.Or(opts.service, "backend")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, opts) }()
	t.Cleanup(cancel)
	awaitListener(t, opts.listen)
	if opts.listenTLS != "" {
		awaitListener(t, opts.listenTLS)
	}
	return opts.listen, func() error { cancel(); return <-done }
}

func awaitListener(t *testing.T, address string) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the backend does not listen: %v", err)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// ask sends a request on a new connection.
func ask(t *testing.T, method, url, body string) (*http.Response, string, error) {
	t.Helper()
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	return response, string(read), err
}

func TestResponses(t *testing.T) {
	address, stop := start(t, options{service: "orders"})
	for _, tc := range []struct {
		name, method, target, body string
		status                     int
		contains                   string
	}{
		{"echo", "POST", "/a%2Fb/c?x=%20", "12345", 200, `"request_uri":"/a%2Fb/c?x=%20"`},
		{"body", "POST", "/", "12345", 200, `"body_bytes":5,"body_sha256":"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"`},
		{"unread body", "POST", "/?read=0", "12345", 200, `"body_bytes":0`},
		{"service", "GET", "/", "", 200, `"service":"orders"`},
		{"status", "GET", "/any?status=418", "", 418, `"path":"/any"`},
		{"size", "GET", "/any?bytes=100000", "", 200, "abcdefghijklmnopqrstuvwxyz"},
		{"plain", "GET", "/api/plain", "", 200, plain},
		{"upload", "PUT", "/api/upload", "12345", 200, `"bytes":5`},
		{"events", "GET", "/sse?n=2&every=1ms", "", 200, "id: 2\ndata: {\"n\":2,"},
		{"health", "GET", "/healthz", "", 200, `"up":true`},
		{"sick", "POST", "/healthz?up=0", "", 200, `"up":false`},
		{"still sick", "GET", "/healthz", "", 503, `"up":false`},
		{"well again", "POST", "/healthz?up=1", "", 200, `"up":true`},
		{"count", "GET", "/api/count", "", 200, `"total":8,"by_method":{"GET":4,"POST":3,"PUT":1}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			response, body, err := ask(t, tc.method, "http://"+address+tc.target, tc.body)
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != tc.status || !strings.Contains(body, tc.contains) {
				t.Errorf("got %d and %.300q, want %d and something with %q", response.StatusCode, body, tc.status, tc.contains)
			}
		})
	}
	if len(plain) != 61 {
		t.Errorf("the plain response has %d bytes, want 61", len(plain))
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestFaults(t *testing.T) {
	address, stop := start(t, options{})
	for target, want := range map[string]string{
		"/?drop=1":    "EOF",
		"/?garbage=1": "malformed HTTP",
		"/?cut=1000":  "unexpected EOF",
	} {
		response, body, err := ask(t, "GET", "http://"+address+target, "")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v (%d bytes), want an error with %q", target, err, len(body), want)
		}
		if response != nil && (response.ContentLength != 2000 || len(body) != 1000) {
			t.Errorf("%s: got %d of %d bytes, want 1000 of 2000", target, len(body), response.ContentLength)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestTrailersBothWays(t *testing.T) {
	address, stop := start(t, options{})
	request, _ := http.NewRequest("POST", "http://"+address+"/trailers", io.NopCloser(strings.NewReader("12345")))
	request.ContentLength = -1
	request.Trailer = http.Header{"X-Mine": {"yes"}}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	if got := response.Trailer.Get("X-Mine"); got != "yes" {
		t.Errorf("the request's trailer came back as %q, want yes", got)
	}
	if got := response.Trailer.Get("X-Body-Sha256"); !strings.HasPrefix(got, "5994471a") {
		t.Errorf("the body's sum is %q, want 5994471a…", got)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestWebSocketEchoKeepsTheType(t *testing.T) {
	address, stop := start(t, options{})
	conn, err := websocket.Dial("ws://"+address+"/api/ws", "", "http://elsewhere.example")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, sent := range []frame{{websocket.TextFrame, []byte("héllo")}, {websocket.BinaryFrame, []byte{0, 255}}} {
		var got frame
		if err := frames.Send(conn, &sent); err != nil {
			t.Fatal(err)
		}
		if err := frames.Receive(conn, &got); err != nil {
			t.Fatal(err)
		}
		if got.kind != sent.kind || !bytes.Equal(got.data, sent.data) {
			t.Errorf("got %v, want %v", got, sent)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// Each message of a stream is echoed before the next message is sent.
func TestGRPCStreamsBothWaysWithoutTLS(t *testing.T) {
	address, stop := start(t, options{})
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	body, send := io.Pipe()
	request, _ := http.NewRequest("POST", "http://"+address+"/pkg.Service/Method?grpc=5", body)
	request.Header.Set("Content-Type", "application/grpc")
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(response.Body)
	for _, message := range []string{"one\n", "two\n"} {
		if _, err := io.WriteString(send, message); err != nil {
			t.Fatal(err)
		}
		if got, err := reader.ReadString('\n'); err != nil || got != message {
			t.Fatalf("got %q and %v, want %q", got, err, message)
		}
	}
	_ = send.Close()
	if _, err := reader.ReadByte(); err != io.EOF {
		t.Errorf("got %v at the end, want EOF", err)
	}
	if response.ProtoMajor != 2 || response.Trailer.Get("Grpc-Status") != "5" {
		t.Errorf("got %s and trailers %v, want HTTP/2 and Grpc-Status 5", response.Proto, response.Trailer)
	}
	transport.CloseIdleConnections()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestTLS(t *testing.T) {
	secure := freeAddress(t)
	_, stop := start(t, options{listenTLS: secure})
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	response, err := (&http.Client{Transport: transport}).Get("https://" + secure + "/")
	if err != nil {
		t.Fatal(err)
	}
	var got echo
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if !got.TLS || got.Protocol != "HTTP/2.0" {
		t.Errorf("got TLS %v over %s, want true over HTTP/2.0", got.TLS, got.Protocol)
	}
	transport.CloseIdleConnections()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestRequestInFlightIsFinished(t *testing.T) {
	address, stop := start(t, options{})
	type result struct {
		status int
		err    error
	}
	responses := make(chan result, 1)
	go func() {
		response, _, err := ask(t, "GET", "http://"+address+"/?delay=300ms", "")
		if err != nil {
			responses <- result{0, err}
			return
		}
		responses <- result{response.StatusCode, nil}
	}()
	deadline := time.Now().Add(5 * time.Second)
	for {
		_, body, err := ask(t, "GET", "http://"+address+"/count", "")
		if err == nil && strings.Contains(body, `"in_flight":1`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the request never arrived: %s %v", body, err)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := <-responses; got.err != nil || got.status != 200 {
		t.Errorf("got %d and %v, want 200", got.status, got.err)
	}
}

func TestHealthCheckCommand(t *testing.T) {
	address, stop := start(t, options{unhealthy: true})
	check := options{listen: address}
	if err := checkHealth(check); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("got %v from a sick backend, want 503", err)
	}
	if _, _, err := ask(t, "POST", "http://"+address+"/healthz?up=1", ""); err != nil {
		t.Fatal(err)
	}
	if err := checkHealth(check); err != nil {
		t.Errorf("got %v from a healthy backend", err)
	}
	http.DefaultClient.CloseIdleConnections()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := checkHealth(check); err == nil {
		t.Error("got no error from a backend that ended")
	}
}

func TestListenDefault(t *testing.T) {
	for ports, want := range map[string]string{"": ":8080", "80": ":80", "80, 81": ":80,:81"} {
		if got := listenDefault(ports); got != want {
			t.Errorf("%q: got %q, want %q", ports, got, want)
		}
	}
}
