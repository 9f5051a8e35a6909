package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rgate/rgate/internal/testkit"
)

// gated is a backend that responds after open is closed.
type gated struct {
	*httptest.Server
	reached atomic.Int32
	open    chan struct{}
}

func newGated(t *testing.T, respond http.HandlerFunc) *gated {
	b := &gated{open: make(chan struct{})}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.reached.Add(1)
		select {
		case <-b.open:
			respond(w, r)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(b.Close)
	t.Cleanup(func() { b.CloseClientConnections() })
	return b
}

// coalescing starts a gateway with one coalescing route and one backend.
func coalescing(t *testing.T, b *gated, options string) *gateway {
	return startGateway(t, strings.NewReplacer("$OPTIONS", options, "$DIAL", b.Listener.Addr().String()).Replace(`
routes: [{path_prefix: /, backend: web, coalesce: $OPTIONS}]
backends: [{name: web, dial: ["$DIAL"]}]
`))
}

// awaitInFlight waits until the gateway has n requests in flight.
func (g *gateway) awaitInFlight(t *testing.T, n int) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("%d requests are in flight", n), func() bool { return g.metric(t, "rgate_requests_in_flight") == float64(n) })
}

func TestCoalesceFiveHundredClients(t *testing.T) {
	t.Parallel()
	const clients = 500
	b := newGated(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "the response to ", r.URL) })
	g := coalescing(t, b, "true")
	var all sync.WaitGroup
	var right, own atomic.Int32
	for i := range clients {
		request := g.request(t, "GET", "/slow?a=b", "", "User-Agent", fmt.Sprint("client/", i))
		if i%50 == 7 { // requests with credentials are not coalesced
			request.Header.Set("Authorization", fmt.Sprint("user-", i))
			own.Add(1)
		}
		all.Go(func() {
			if got, err := do(g.client, request); err != nil || got.status != 200 || got.body != "the response to /slow?a=b" {
				t.Errorf("client %d got %d %q, %v", i, got.status, got.body, err)
				return
			}
			right.Add(1)
		})
	}
	g.awaitInFlight(t, clients)
	close(b.open)
	all.Wait()
	if got, want := b.reached.Load(), 1+own.Load(); right.Load() != clients || got != want {
		t.Errorf("%d right responses of %d requests to the backend, want %d of %d", right.Load(), got, clients, want)
	}
	if got, want := g.metric(t, "rgate_coalesced_requests_total", "route", "/", "backend", "web"), float64(clients-1-own.Load()); got != want {
		t.Errorf("%v are counted as coalesced, want %v", got, want)
	}
	if got := g.metric(t, "rgate_requests_total", "code", "200"); got != clients {
		t.Errorf("%v are counted with status 200, want %d", got, clients)
	}
}

func TestCoalesceLeaderIsKilled(t *testing.T) {
	t.Parallel()
	half, rest := make(chan struct{}), make(chan struct{})
	b := newGated(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "one, ")
		_ = http.NewResponseController(w).Flush()
		close(half)
		<-rest
		_, _ = io.WriteString(w, "two")
	})
	for _, when := range []string{"before the response", "in its middle"} {
		t.Run(when, func(t *testing.T) {
			b.reached.Store(0)
			b.open, half, rest = make(chan struct{}), make(chan struct{}), make(chan struct{})
			g := coalescing(t, b, "true")
			leader, err := net.Dial("tcp", g.address())
			must(t, "dialing", err)
			_, err = fmt.Fprintf(leader, "GET /x HTTP/1.1\r\nHost: %s\r\n\r\n", g.address())
			must(t, "asking", err)
			testkit.Eventually(t, "the leader is under way", func() bool { return b.reached.Load() == 1 })
			const followers = 20
			var all sync.WaitGroup
			for range followers {
				request := g.request(t, "GET", "/x", "")
				request.Header.Set("User-Agent", "")
				all.Go(func() {
					if got, err := do(g.client, request); err != nil || got.body != "one, two" {
						t.Errorf("a follower got %q, %v", got.body, err)
					}
				})
			}
			g.awaitInFlight(t, 1+followers)
			if when == "before the response" {
				leader.Close()
				close(b.open)
				<-half
			} else {
				close(b.open)
				<-half
				_, err := http.ReadResponse(bufio.NewReader(leader), nil)
				must(t, "reading the header", err)
				leader.Close()
			}
			close(rest)
			all.Wait()
			if n := b.reached.Load(); n != 1 {
				t.Errorf("the backend was asked %d times", n)
			}
		})
	}
}

// The gateway cancels the upstream request when all clients have disconnected.
func TestCoalesceEverybodyLeaves(t *testing.T) {
	t.Parallel()
	b := newGated(t, func(http.ResponseWriter, *http.Request) {})
	g := coalescing(t, b, "true")
	left := make(chan struct{})
	b.Config.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b.reached.Add(1)
		<-r.Context().Done()
		close(left)
	})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 10 {
		request := g.request(t, "GET", "/", "").WithContext(ctx)
		all.Go(func() { _, _ = do(g.client, request) })
	}
	g.awaitInFlight(t, 10)
	cancel()
	all.Wait()
	select {
	case <-left:
	case <-time.After(patience):
		t.Error("the backend does not see that its client left")
	}
	g.awaitInFlight(t, 0)
}

// The body exceeds the buffer, and one client starts to read after all others have
// received it.
func TestCoalesceLargeBodyAndSlowClient(t *testing.T) {
	t.Parallel()
	line := strings.Repeat("0123456789abcde\n", 1<<10) // 16 KiB
	const lines = 2 << 10                              // 32 MiB
	b := newGated(t, func(w http.ResponseWriter, _ *http.Request) {
		for i := range lines {
			if _, err := fmt.Fprintf(w, "%08d%s", i, line[8:]); err != nil {
				return
			}
		}
	})
	g := coalescing(t, b, "{max_buffer: 256KiB}")
	check := func(body io.Reader) error {
		want := make([]byte, 0, len(line))
		got := make([]byte, len(line))
		for i := range lines {
			if _, err := io.ReadFull(body, got); err != nil {
				return fmt.Errorf("line %d: %w", i, err)
			}
			if want = append(fmt.Appendf(want[:0], "%08d", i), line[8:]...); string(got) != string(want) {
				return fmt.Errorf("line %d is %.20q", i, got)
			}
		}
		return nil
	}
	var fast sync.WaitGroup
	for range 5 {
		request := g.request(t, "GET", "/", "")
		fast.Go(func() {
			response, err := g.client.Do(request)
			if err == nil {
				defer response.Body.Close()
				err = check(response.Body)
			}
			if err != nil {
				t.Errorf("a fast client: %v", err)
			}
		})
	}
	g.awaitInFlight(t, 5)
	slow, err := net.Dial("tcp", g.address())
	must(t, "dialing", err)
	defer slow.Close()
	must(t, "setting a deadline", slow.SetDeadline(time.Now().Add(3*patience)))
	_, err = fmt.Fprintf(slow, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", g.address())
	must(t, "asking", err)
	g.awaitInFlight(t, 6)
	close(b.open)
	fast.Wait()
	response, err := http.ReadResponse(bufio.NewReader(slow), nil)
	must(t, "reading the slow client's header", err)
	must(t, "reading the slow client's body", check(response.Body))
	if n := b.reached.Load(); n < 2 {
		t.Errorf("the backend was asked %d times: the slow client was waited for", n)
	}
}

// All coalesced requests receive the failure of the one upstream request.
func TestCoalesceFailures(t *testing.T) {
	t.Parallel()
	b := newGated(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	g := startGateway(t, strings.ReplaceAll(`
routes: [{path_prefix: /, backend: web, coalesce: true}]
backends: [{name: web, dial: ["$DIAL"], retries: 0}]
`, "$DIAL", b.Listener.Addr().String()))
	var all sync.WaitGroup
	for range 20 {
		request := g.request(t, "GET", "/", "")
		all.Go(func() {
			got, err := do(g.client, request)
			if err != nil {
				t.Error(err)
				return
			}
			wantDown(t, "a client", got)
		})
	}
	g.awaitInFlight(t, 20)
	close(b.open)
	all.Wait()
	if n := b.reached.Load(); n != 1 {
		t.Errorf("the backend was asked %d times", n)
	}
}
