package integration

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rgate/rgate/internal/testkit"
)

// meterCount holds the body bytes that a client or backend has received and sent.
type meterCount struct {
	in, out   atomic.Int64
	reloading bool // connections may be closed while a request is being sent
}

// meterBackend is a backend that counts the body bytes it receives and sends.
type meterBackend struct {
	meterCount
	address string

	proceed chan struct{} // releases waiting requests when closed
	got     chan int64    // number of bytes received of an upload before it is aborted

	aborted meterCount    // uploads whose clients close the connection early
	begun   chan struct{} // receives a value when an aborted upload has begun
}

func startMeterBackend(t testing.TB) *meterBackend {
	b := &meterBackend{proceed: make(chan struct{}), got: make(chan int64, 100), begun: make(chan struct{}, 100)}
	srv := httptest.NewServer(b)
	t.Cleanup(srv.Close)
	b.address = srv.Listener.Addr().String()
	return b
}

func (b *meterBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.URL.Query().Get("n"))
	switch r.URL.Path {
	case "/web/cut":
		read, _ := io.CopyN(io.Discard, r.Body, int64(n))
		b.in.Add(read)
		b.got <- read
		rest, _ := io.Copy(io.Discard, r.Body) // returns when the client disconnects
		b.in.Add(rest)
		return
	case "/cut/upload":
		read, _ := io.CopyN(io.Discard, r.Body, int64(n))
		b.begun <- struct{}{}
		rest, _ := io.Copy(io.Discard, r.Body)
		b.aborted.in.Add(read + rest)
		return
	case "/web/switch":
		b.switchProtocols(w)
		return
	case "/web/stream":
		b.write(w, n)
		_ = http.NewResponseController(w).Flush()
		<-b.proceed
		return
	}
	read, _ := io.Copy(io.Discard, r.Body)
	b.in.Add(read)
	switch r.URL.Path {
	case "/web/204":
		w.WriteHeader(http.StatusNoContent)
	case "/web/304":
		w.Header().Set("Etag", `"x"`)
		w.WriteHeader(http.StatusNotModified)
	case "/web/events":
		w.Header().Set("Content-Type", "text/event-stream")
		for range n {
			b.write(w, 9)
			_ = http.NewResponseController(w).Flush()
		}
	case "/web/length":
		w.Header().Set("Content-Length", strconv.Itoa(n))
		fallthrough
	default:
		if r.Method != http.MethodHead {
			b.write(w, n)
		}
	}
}

func (b *meterBackend) write(w io.Writer, n int) {
	written, _ := w.Write(bytes.Repeat([]byte("x"), n))
	b.out.Add(int64(written))
}

// switchProtocols switches protocols and echoes everything twice until EOF.
func (b *meterBackend) switchProtocols(w http.ResponseWriter) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	frame := make([]byte, 4096)
	for {
		n, err := buf.Read(frame)
		b.in.Add(int64(n))
		for range 2 {
			written, _ := conn.Write(frame[:n])
			b.out.Add(int64(written))
		}
		if err != nil {
			return
		}
	}
}

// meterGateway starts a gateway that serves HTTP/1.1 and HTTP/2 without TLS.
func meterGateway(t testing.TB, b *meterBackend, env ...string) *gateway {
	return launch(t, "Caddyfile", strings.ReplaceAll(`{
	admin localhost:$ADMIN
	servers {
		protocols h1 h2c
	}
}
:$PORT {
	rgate {
		bandwidth {
			store sqlite://$DIR/bandwidth.db
			flush_interval 1s
		}
		backend web {
			dial $BACKEND
		}
		backend cut {
			dial $BACKEND
		}
		route /web web
		route /cut cut
		default_response "This is not reachable" 403
	}
}
`, "$BACKEND", b.address), env, "run", "--config", "$FILE")
}

// bodies returns the body bytes that the gateway has counted for a service.
func (g *gateway) bodies(t testing.TB, service string) (ingress, egress int64) {
	t.Helper()
	of := func(direction string) int64 {
		return int64(g.metric(t, "rgate_bandwidth_bytes_total", "service", service, "direction", direction))
	}
	return of("ingress"), of("egress")
}

// agree checks that client and backend counted the same bytes, and waits until the
// gateway has counted them.
func (g *gateway) agree(t testing.TB, client, backend *meterCount) {
	t.Helper()
	if client.out.Load() != backend.in.Load() || client.in.Load() != backend.out.Load() {
		t.Errorf("the client sent %d and got %d, the backend got %d and sent %d",
			client.out.Load(), client.in.Load(), backend.in.Load(), backend.out.Load())
	}
	g.counts(t, client)
}

// counts waits until the gateway has counted the same bytes as the client.
func (g *gateway) counts(t testing.TB, client *meterCount) {
	t.Helper()
	var ingress, egress int64
	defer func() {
		if t.Failed() {
			t.Logf("the gateway has %d in and %d out", ingress, egress)
		}
	}()
	testkit.Eventually(t, fmt.Sprintf("%d are in and %d out", client.out.Load(), client.in.Load()), func() bool {
		ingress, egress = g.bodies(t, "web")
		return ingress == client.out.Load() && egress == client.in.Load()
	})
}

// exchange sends a request and counts the bodies. size is the size of the request body.
func (c *meterCount) exchange(t testing.TB, client *http.Client, request *http.Request, size int) {
	response, err := client.Do(request)
	if c.reloading && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)) {
		return // closed before any byte of the request was read
	}
	if err != nil {
		t.Errorf("%s %s: %v", request.Method, request.URL, err)
		return
	}
	defer response.Body.Close()
	read, err := io.Copy(io.Discard, response.Body)
	if err != nil {
		t.Errorf("%s %s: reading the response: %v", request.Method, request.URL, err)
	}
	c.in.Add(read)
	c.out.Add(int64(size))
}

// mixed sends a request of a random kind.
func (c *meterCount) mixed(t testing.TB, g *gateway, client *http.Client) {
	var body io.Reader
	size, n := 0, rand.IntN(20_000)
	method, path := "GET", "/web/any"
	switch rand.IntN(8) {
	case 0:
		path = "/web/length"
	case 1:
		method = "HEAD"
	case 2:
		path = "/web/204"
	case 3:
		path = "/web/304"
	case 4:
		path, n = "/web/events", rand.IntN(20)
	case 5: // with Content-Length
		method, size = "POST", rand.IntN(100_000)
		body = bytes.NewReader(make([]byte, size))
	case 6: // chunked
		method, size = "PUT", 1+rand.IntN(100_000)
		body = struct{ io.Reader }{bytes.NewReader(make([]byte, size))}
	}
	request, err := http.NewRequestWithContext(t.Context(), method, g.url(fmt.Sprintf("%s?n=%d", path, n)), body)
	if err != nil {
		t.Error(err)
		return
	}
	c.exchange(t, client, request, size)
}

// uploading sends part of an upload that never completes, and returns its connection.
func (g *gateway) uploading(t testing.TB, path string, part int, header string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", g.address())
	must(t, "dialing", err)
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: gateway.example\r\n%s%s", path, header, make([]byte, part))
	must(t, "sending a part", err)
	return conn
}

// cut sends part of an upload and closes the write side when the backend has received it.
// The part is a whole chunk, because the gateway buffers incomplete chunks.
func (c *meterCount) cut(t testing.TB, g *gateway, b *meterBackend) {
	const part = 70_001
	conn := g.uploading(t, fmt.Sprintf("/web/cut?n=%d", part), part, fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", part))
	defer conn.Close()
	_, err := io.WriteString(conn, "\r\n")
	must(t, "ending the chunk", err)
	select {
	case got := <-b.got:
		c.out.Add(got)
	case <-time.After(patience):
		t.Error("the part did not arrive")
		return
	}
	must(t, "leaving", conn.(*net.TCPConn).CloseWrite())
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, "reading the response", err)
	own, _ := io.Copy(io.Discard, response.Body)
	if response.StatusCode < 400 {
		t.Errorf("got %d to half an upload", response.StatusCode)
	}
	c.in.Add(own)
	b.out.Add(own) // the gateway generates the error response
}

func TestAStreamIsMeteredWhileItFlows(t *testing.T) {
	t.Parallel()
	b := startMeterBackend(t)
	g := meterGateway(t, b)
	response, err := g.client.Do(g.request(t, "GET", "/web/stream?n=1000000", ""))
	must(t, "asking for a stream", err)
	defer response.Body.Close()
	_, err = io.CopyN(io.Discard, response.Body, 1_000_000)
	must(t, "reading", err)
	testkit.Eventually(t, "what has come is counted", func() bool {
		_, egress := g.bodies(t, "web")
		return egress == 1_000_000
	})
	if n := g.metric(t, "rgate_requests_in_flight", "backend", "web"); n != 1 {
		t.Errorf("%g streams are open, want one", n)
	}
	close(b.proceed)
	_, err = io.Copy(io.Discard, response.Body)
	must(t, "reading the end", err)
}

func TestAnUploadIsMeteredWhileItFlowsAndAsFarAsItCame(t *testing.T) {
	t.Parallel()
	b := startMeterBackend(t)
	g := meterGateway(t, b)
	const part = 70_001
	conn := g.uploading(t, fmt.Sprintf("/web/cut?n=%d", part), part, "Content-Length: 1000000\r\n\r\n")
	defer conn.Close()
	arrived := func() bool { ingress, _ := g.bodies(t, "web"); return ingress == part }
	testkit.Eventually(t, "what has come is counted", arrived)
	must(t, "leaving", conn.Close())
	testkit.Eventually(t, "the end is noticed", func() bool { return g.metric(t, "rgate_requests_in_flight") == 0 })
	if got := b.in.Load(); !arrived() || got > part {
		t.Errorf("the backend has %d of %d", got, part)
	}
}

// Reloads that add and remove routes, with their metric series, lose no bytes of
// concurrent requests.
func TestReloadsLoseNoBytes(t *testing.T) {
	t.Parallel()
	b := startMeterBackend(t)
	config := func(n int) string {
		return fmt.Sprintf(`admin: localhost:$ADMIN
stream_close_delay: 0s
default_response: {status_code: 410, body: version %d}
routes: [{path_prefix: /web, backend: web}, {path_prefix: /web/%d, backend: web}]
backends: [{name: web, dial: ["%s"]}]
`, n, n, b.address)
	}
	g := startGateway(t, config(0))
	client := meterCount{reloading: true}
	var stop atomic.Bool
	var workers sync.WaitGroup
	for range 3 {
		workers.Go(func() {
			with := newClient(t)
			for !stop.Load() {
				client.mixed(t, g, with)
			}
		})
	}
	conn := client.open(t, g)
	for n := 1; n <= 5; n++ {
		before := client.in.Load()
		testkit.Eventually(t, "there is traffic", func() bool { return client.in.Load() > before })
		g.write(t, config(n))
		g.reload(t)
		g.awaitVersion(t, n)
	}
	stop.Store(true)
	workers.Wait()
	// The gateway closes both sides of the tunnel.
	must(t, "setting a deadline", conn.SetDeadline(time.Now().Add(patience)))
	goodbye, _ := io.Copy(io.Discard, conn.reader)
	client.in.Add(goodbye)
	g.counts(t, &client)
}
