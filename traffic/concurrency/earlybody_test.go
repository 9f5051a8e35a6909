package concurrency

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/policy/policytest"
)

// queueServer starts a server with a limit of one request. It returns the bodies of
// admitted requests, which the handler reads.
func queueServer(t *testing.T, p *Concurrency) (server *httptest.Server, bodies chan string) {
	t.Helper()
	bodies = make(chan string, 10)
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, new(caddyhttp.Server))
		err := p.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			body, err := io.ReadAll(r.Body)
			bodies <- string(body)
			return err
		}))
		var failure caddyhttp.HandlerError
		if errors.As(err, &failure) {
			w.WriteHeader(failure.StatusCode)
		}
	}))
	t.Cleanup(server.Close)
	return server, bodies
}

func awaitQueued(t *testing.T, p *Concurrency, n int) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("%d wait", n), func() bool { return p.limiterAt(policy.RouteInfo{}).counts().queued == n })
}

func TestConcurrencyNoticesThatAClientWithABodyLeaves(t *testing.T) {
	p := testkit.Provision(t, &Concurrency{Max: 1, Queue: 1, QueueTimeout: caddy.Duration(time.Minute)})
	server, bodies := queueServer(t, p)
	leave := occupy(t, p, nil)
	for what, request := range map[string]string{
		"a whole body":   "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde",
		"half of a body": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab",
		"nothing of it":  "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
		"a large one":    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n" + strings.Repeat("x", 65536),
	} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		t.Log(what)
		awaitQueued(t, p, 1)
		conn.Close()
		awaitQueued(t, p, 0)
	}
	leave()
	select {
	case body := <-bodies:
		t.Errorf("%q was sent although its client had left", body)
	default:
	}
}

// The body is complete at the backend, including the part that was read while the request
// waited.
func TestConcurrencySendsBodiesReadWhileWaiting(t *testing.T) {
	p := testkit.Provision(t, &Concurrency{Max: 1, Queue: 1, QueueTimeout: caddy.Duration(time.Minute)})
	server, bodies := queueServer(t, p)
	for _, size := range []int{1, 100, maxEarly, maxEarly + 1} {
		for _, early := range []int{0, size / 2, size} {
			body := make([]byte, size)
			for i := range body {
				body[i] = byte('a' + rand.N(26))
			}
			leave := occupy(t, p, nil)
			reader, writer := io.Pipe()
			request, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, reader)
			request.ContentLength = int64(size)
			responded := make(chan error, 1)
			go func() {
				response, err := server.Client().Do(request)
				if err == nil && response.StatusCode != 200 {
					err = errors.New(response.Status)
				}
				responded <- err
			}()
			_, _ = writer.Write(body[:early])
			awaitQueued(t, p, 1)
			leave()
			_, _ = writer.Write(body[early:])
			writer.Close()
			if err := <-responded; err != nil {
				t.Fatalf("%d bytes, %d of them early: %v", size, early, err)
			}
			if got := <-bodies; got != string(body) {
				t.Errorf("%d bytes, %d of them early: %d came, and not the same", size, early, len(got))
			}
		}
	}
}

// The body of a rejected request is complete, so that it can be sent to another backend.
func TestConcurrencyLeavesBodiesToOthers(t *testing.T) {
	p := testkit.Provision(t, &Concurrency{Max: 1, Queue: 1, QueueTimeout: caddy.Duration(20 * time.Millisecond)})
	defer occupy(t, p, nil)()
	for _, watched := range []bool{false, true} {
		r, w := policytest.Request(t.Context(), nil, strings.NewReader("abc"))
		var body *httpx.UnreadBody
		if watched {
			body = httpx.WrapBody(r)
		}
		if err := p.ServeHTTP(w, r, policytest.RespondWith(200)); err != nil || w.Code != 503 {
			t.Fatalf("got %d, %v", w.Code, err)
		}
		if !body.Untouched() {
			t.Error("it counts as read")
		}
		body.Give(r)
		if got, err := io.ReadAll(r.Body); err != nil || string(got) != "abc" {
			t.Errorf("what is left is %q, %v", got, err)
		}
	}
}

func TestEarlyBodies(t *testing.T) {
	broken := errors.New("broken")
	request := func(body io.Reader, length int64) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/", body)
		r.ContentLength = length
		return r
	}
	// Halt between any two reads, and read in small pieces.
	for halt := range 5 {
		source, write := io.Pipe()
		r := request(source, 8)
		b := readEarly(r)
		go func() {
			for i := range 4 {
				_, _ = write.Write(fmt.Appendf(nil, "%d%d", i, i))
			}
			write.CloseWithError(broken)
		}()
		var got bytes.Buffer
		for i := 0; ; i++ {
			if i == halt {
				b.halt()
			}
			var p [3]byte
			n, err := r.Body.Read(p[:])
			got.Write(p[:n])
			if err != nil {
				if !errors.Is(err, broken) {
					t.Errorf("got %v", err)
				}
				break
			}
		}
		b.halt()
		if got.String() != "00112233" {
			t.Errorf("halted after %d reads: got %s", halt, &got)
		}
	}

	r := request(strings.NewReader("abc"), 3)
	b := readEarly(r)
	b.halt()
	_ = r.Body.Close()
	if _, err := r.Body.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("reading after closing: %v", err)
	}
	for what, r := range map[string]*http.Request{
		"none":     request(http.NoBody, 0),
		"too much": request(strings.NewReader("a"), maxEarly+1),
		"unknown":  request(strings.NewReader("a"), -1),
	} {
		if readEarly(r) != nil {
			t.Errorf("%s: it is read", what)
		}
	}
	r = request(strings.NewReader("a"), 1)
	r.Header.Set("Expect", "100-continue")
	if readEarly(r) != nil {
		t.Error("it is read though the client waits for a word")
	}
	r = request(strings.NewReader("a"), 1)
	if r.ProtoMajor = 2; readEarly(r) != nil {
		t.Error("it is read though HTTP/2 notices anyway")
	}
}
