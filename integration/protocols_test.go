package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/rgate/rgate/internal/testkit"
)

// The tests in this file send data only after the previous data has arrived. They would
// time out behind a gateway that buffers.

func TestWebSocket(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := startGateway(t, oneBackend)
	g.await(t, "web", 1)
	conn, err := websocket.Dial("ws://"+g.address()+"/any/ws", "", "http://elsewhere.example")
	must(t, "opening a WebSocket", err)
	defer conn.Close()
	must(t, "setting a deadline", conn.SetDeadline(time.Now().Add(patience)))
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
		sent := strings.Repeat("é", size/2) + strings.Repeat("x", size%2)
		must(t, "sending", websocket.Message.Send(conn, sent))
		var got string
		must(t, "receiving", websocket.Message.Receive(conn, &got))
		if got != sent {
			t.Errorf("a message of %d bytes came back as one of %d", len(sent), len(got))
		}
	}
	if got := g.stats(t, "").Requests; got.Success != 0 || got.Error != 0 {
		t.Errorf("the statistics count an open WebSocket as %+v, want neither", got)
	}
	must(t, "closing", conn.Close())
	testkit.Eventually(t, "the end of the WebSocket is noticed", func() bool {
		return g.metric(t, "rgate_requests_total", "code", "101") == 1 && g.metric(t, "rgate_requests_in_flight") == 0
	})
	if got := g.stats(t, "").Requests; got.Success != 0 || got.Error != 0 {
		t.Errorf("the statistics count a WebSocket as %+v, want neither", got)
	}
}

func TestServerSentEventsComeAtOnce(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{})
	g := startGateway(t, oneBackend)
	g.await(t, "web", 1)
	// The second event is sent only after the test's timeout.
	response, err := g.client.Do(g.request(t, "GET", "/sse?n=2&every=1h", ""))
	must(t, "asking for events", err)
	if contentType := response.Header.Get("Content-Type"); contentType != "text/event-stream" {
		t.Errorf("got %q, want text/event-stream", contentType)
	}
	late := time.AfterFunc(patience, func() { _ = response.Body.Close() })
	defer late.Stop()
	lines := bufio.NewReader(response.Body)
	for _, want := range []string{"id: 1\n", "data: {\"n\":1,"} {
		line, err := lines.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, want) {
			t.Fatalf("got %q and %v, want %q", line, err, want)
		}
	}
	// The backend must notice that the client has disconnected.
	_ = response.Body.Close()
	testkit.Eventually(t, "the backend's stream ends", func() bool { return web.counts(t).InFlight == 0 })

	got := g.get(t, "/sse?n=20&every=1ms")
	if events := strings.Count(got.body, "\n\n"); events != 20 {
		t.Errorf("%d of 20 events came through", events)
	}
}

// gRPC uses HTTP/2 to the backend, bidirectional messages and trailers.
func TestGRPC(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := launch(t, "Caddyfile", `{
	admin localhost:$ADMIN
	servers {
		protocols h1 h2c
	}
}
:$PORT {
	rgate {
		backend web {
			match_labels app_name=$APP
			scheme h2c
		}
		route / web
	}
}
`, nil, "run", "--config", "$FILE")
	g.await(t, "web", 1)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	for _, code := range []string{"0", "5"} {
		body, send := io.Pipe()
		request := g.request(t, "POST", "/pkg.Service/Method?grpc="+code, "", "Content-Type", "application/grpc", "TE", "trailers")
		request.Body, request.ContentLength = body, -1
		response, err := transport.RoundTrip(request)
		must(t, "calling", err)
		late := time.AfterFunc(patience, func() { _ = response.Body.Close() })
		messages := bufio.NewReader(response.Body)
		for n := range 10 {
			message := fmt.Sprintf("message %d\n", n)
			_, err := io.WriteString(send, message)
			must(t, "sending a message", err)
			if got, err := messages.ReadString('\n'); err != nil || got != message {
				t.Fatalf("got %q and %v, want %q", got, err, message)
			}
		}
		must(t, "ending the call", send.Close())
		if rest, err := io.ReadAll(messages); err != nil || len(rest) > 0 {
			t.Errorf("got %q and %v at the end, want nothing", rest, err)
		}
		late.Stop()
		_ = response.Body.Close()
		if got := response.Trailer.Get("Grpc-Status"); response.ProtoMajor != 2 || got != code {
			t.Errorf("the call ended over %s with status %q, want HTTP/2 with %s", response.Proto, got, code)
		}
	}
	if got := g.stats(t, "").Requests; got.Success != 2 || got.Error != 0 {
		t.Errorf("the statistics are %+v after two calls, want two successes", got)
	}
}

func TestTrailersBothWays(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := startGateway(t, oneBackend)
	g.await(t, "web", 1)
	request := g.request(t, "POST", "/trailers", "")
	request.Body, request.ContentLength = io.NopCloser(strings.NewReader("12345")), -1
	request.Trailer = http.Header{"X-Mine": {"yes"}}
	got, err := do(g.client, request)
	must(t, "asking", err)
	if got.status != http.StatusOK || got.trailer.Get("X-Mine") != "yes" || !strings.HasPrefix(got.trailer.Get("X-Body-Sha256"), "5994471a") {
		t.Errorf("got %d with trailers %v, want 200 with the request's own trailer and the body's sum", got.status, got.trailer)
	}
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := startGateway(t, oneBackend)
	g.await(t, "web", 1)
	open := func(target string) (net.Conn, *bufio.Reader) {
		conn, err := net.Dial("tcp", g.address())
		must(t, "dialing", err)
		must(t, "setting a deadline", conn.SetDeadline(time.Now().Add(patience)))
		_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: gateway.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n", target)
		must(t, "sending the header", err)
		return conn, bufio.NewReader(conn)
	}
	conn, reader := open("/")
	defer conn.Close()
	resp, err := http.ReadResponse(reader, nil) // 100 is sent before the body
	if err != nil || resp.StatusCode != http.StatusContinue {
		t.Fatalf("got %v and %v, want 100 Continue", resp, err)
	}
	_, err = io.WriteString(conn, "12345")
	must(t, "sending the body", err)
	for err == nil && resp.StatusCode == http.StatusContinue { // the backend may send another 100
		resp, err = http.ReadResponse(reader, nil)
	}
	must(t, "reading the response", err)
	body, err := io.ReadAll(resp.Body)
	must(t, "reading the body", err)
	if got := (response{status: resp.StatusCode, body: string(body)}).echo(t); got.BodyBytes != 5 {
		t.Errorf("%d bytes of 5 reached the backend", got.BodyBytes)
	}
	// A request without a route gets its response before the body is sent.
	g.write(t, "admin: localhost:$ADMIN\nlisten: :$PORT\ndefault_response: {status_code: 410}\n")
	g.reload(t)
	conn, reader = open("/")
	defer conn.Close()
	if line, err := reader.ReadString('\n'); err != nil || line != "HTTP/1.1 410 Gone\r\n" {
		t.Errorf("got %q and %v, want 410 at once", line, err)
	}
}

func TestGibibyteUploadAndDownloadInConstantMemory(t *testing.T) {
	startContainer(t, spec{})
	g := startGateway(t, oneBackend)
	g.await(t, "web", 1)
	const size = 1 << 30
	for range 20 {
		g.get(t, "/") // warms up the gateway's buffers and connections
	}
	for name, transfer := range map[string]func(){
		"upload": func() {
			request := g.request(t, "POST", "/upload", "")
			request.Body, request.ContentLength = io.NopCloser(io.LimitReader(zeros{}, size)), size
			got, err := do(g.client, request)
			must(t, "uploading", err)
			if want := fmt.Sprintf(`"bytes":%d`, size); !strings.Contains(got.body, want) {
				t.Errorf("upload: got %d and %q, want %s", got.status, got.body, want)
			}
		},
		"download": func() {
			response, err := g.client.Do(g.request(t, "GET", fmt.Sprintf("/?bytes=%d", size), ""))
			must(t, "downloading", err)
			n, err := io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			if err != nil || n != size {
				t.Errorf("download: got %d bytes and %v, want %d", n, err, size)
			}
		},
	} {
		must(t, "forgetting the peak of memory", os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", g.cmd.Process.Pid), []byte("5"), 0o600))
		before, begin := g.memory(t, "VmRSS"), time.Now()
		transfer()
		took, grown := time.Since(begin), g.memory(t, "VmHWM")-before
		t.Logf("%s of 1 GiB: %s, memory %d MiB, at most %d MiB more", name, took.Round(time.Millisecond), before>>20, grown>>20)
		if grown > 64<<20 {
			t.Errorf("%s: the gateway's memory grew by %d MiB, want 64 at most", name, grown>>20)
		}
	}
}

// zeros is a reader of endless zero bytes.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// memory returns a value of /proc/PID/status in bytes.
func (g *gateway) memory(t testing.TB, name string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.cmd.Process.Pid))
	must(t, "reading the gateway's memory", err)
	found := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		t.Fatalf("found no %s in %s", name, status)
	}
	kilobytes, err := strconv.ParseInt(string(found[1]), 10, 64)
	must(t, "reading the gateway's memory", err)
	return kilobytes << 10
}
