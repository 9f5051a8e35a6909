package integration

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/rgate/rgate/internal/testkit"
)

func (g *gateway) awaitQueued(t *testing.T, n float64) {
	t.Helper()
	testkit.Eventually(t, "that many requests wait", func() bool { return g.metric(t, "rgate_concurrency_queued") == n })
}

func TestConcurrencyIsExactUnderLoad(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{})
	g := startGateway(t, `
routes: [{path_prefix: /, backend: web}]
backends: [{name: web, match_labels: {app_name: $APP}, concurrency: {max: 4, queue: 100, queue_timeout: 1m}}]
`)
	g.await(t, "web", 1)
	var clients sync.WaitGroup
	for range 40 {
		clients.Go(func() {
			for range 10 {
				if got, err := do(g.client, g.request(t, "GET", "/?delay=5ms", "")); err != nil || got.status != 200 {
					t.Errorf("got %d, %v", got.status, err)
				}
			}
		})
	}
	clients.Wait()
	if seen := web.counts(t); seen.MaxInFlight != 4 || seen.Total != 400 {
		t.Errorf("the container has had %d of %d requests at once, want exactly 4 of 400", seen.MaxInFlight, seen.Total)
	}
	if n := g.metric(t, "rgate_concurrency_in_flight") + g.metric(t, "rgate_concurrency_queued") + g.metric(t, "rgate_concurrency_rejected_total"); n != 0 {
		t.Errorf("in the end, %v requests are left", n)
	}
}

// gate is a backend that holds requests until open is closed.
type gate struct {
	*httptest.Server
	open chan struct{}

	mu      sync.Mutex
	arrived []string // Guarded by mu.
}

func newGate(t *testing.T) *gate {
	b := &gate{open: make(chan struct{})}
	b.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.arrived = append(b.arrived, r.URL.Path)
		b.mu.Unlock()
		select {
		case <-b.open:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *gate) order() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.arrived, "")
}

func TestConcurrencyQueueIsInOrder(t *testing.T) {
	t.Parallel()
	backend := newGate(t)
	g := startGateway(t, `
routes: [{path_prefix: /, backend: web}]
backends: [{name: web, dial: ["`+backend.Listener.Addr().String()+`"], concurrency: {max: 1, queue: 9, queue_timeout: 1m}}]
`)
	send := func(ctx context.Context, path string) (status chan int) {
		status = make(chan int, 1)
		go func() {
			got, _ := do(g.client, g.request(t, "GET", path, "").WithContext(ctx))
			status <- got.status
		}()
		return status
	}
	statuses := []chan int{send(t.Context(), "/0")}
	testkit.Eventually(t, "the first one has arrived", func() bool { return backend.order() == "/0" })
	leaving, leave := context.WithCancel(t.Context())
	for i, path := range strings.Fields("/1 /2 /3 /4 /5 /6 /7 /8 /9") {
		ctx := t.Context()
		if i%3 == 1 { // cancels /2, /5 and /8
			ctx = leaving
		}
		statuses = append(statuses, send(ctx, path))
		g.awaitQueued(t, float64(i+1))
	}
	wantDown(t, "one too many", g.get(t, "/x"))
	leave()
	g.awaitQueued(t, 6)
	last := send(t.Context(), "/y") // uses the free queue slot
	g.awaitQueued(t, 7)
	close(backend.open)
	for i, status := range append(statuses, last) {
		want := 200
		if i == 2 || i == 5 || i == 8 {
			want = 0 // the client disconnected
		}
		if got := <-status; got != want {
			t.Errorf("request %d: got %d, want %d", i, got, want)
		}
	}
	if got := backend.order(); got != "/0/1/3/4/6/7/9/y" {
		t.Errorf("they arrived as %s", got)
	}
	if got := g.metric(t, "rgate_concurrency_rejected_total", "reason", "full"); got != 1 {
		t.Errorf("%v were rejected, want 1", got)
	}
}

func TestConcurrencyEndsWaiting(t *testing.T) {
	t.Parallel()
	backend := newGate(t)
	g := startGateway(t, `
concurrency: {max: 1, queue: 5, queue_timeout: 50ms, key: "{http.rgate.route}"}
routes: [{path_prefix: /a, backend: web}, {path_prefix: /b, backend: web}]
backends: [{name: web, dial: ["`+backend.Listener.Addr().String()+`"]}]
`)
	for _, path := range []string{"/a", "/b"} {
		go func() { _, _ = do(g.client, g.request(t, "GET", path, "")) }()
	}
	testkit.Eventually(t, "each route has its place", func() bool { return len(backend.order()) == 4 })
	wantDown(t, "one that waits too long", g.get(t, "/a"))
	if got := g.metric(t, "rgate_concurrency_rejected_total", "reason", "timeout"); got != 1 {
		t.Errorf("%v were rejected, want 1", got)
	}
	close(backend.open)
	testkit.Eventually(t, "all have left", func() bool { return g.metric(t, "rgate_concurrency_in_flight") == 0 })
	wantStatus(t, "in the end", g.get(t, "/a"), 200)
}

func TestConcurrencyCountsWebSocketsWhileTheyLive(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := startGateway(t, `
routes: [{path_prefix: /, backend: web}]
backends: [{name: web, match_labels: {app_name: $APP}, concurrency: 1}]
`)
	g.await(t, "web", 1)
	conn, err := websocket.Dial("ws://"+g.address()+"/ws", "", "http://elsewhere.example")
	must(t, "opening a WebSocket", err)
	must(t, "sending", websocket.Message.Send(conn, "hello"))
	var got string
	must(t, "receiving", websocket.Message.Receive(conn, &got))
	wantDown(t, "beside a WebSocket", g.get(t, "/"))
	must(t, "closing", conn.Close())
	g.awaitStatus(t, "/", 200)
}

// The offered load is five times the backend's capacity. The backend stays fully used,
// completes only useful work, and admitted requests wait briefly.
func TestOverload(t *testing.T) {
	const (
		max, work = 4, 80 * time.Millisecond
		duration  = 3 * time.Second
	)
	var inside, most, busy, done atomic.Int64
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		if n := inside.Add(1); n > most.Load() {
			most.Store(n)
		}
		time.Sleep(work) // simulates a slow backend
		inside.Add(-1)
		busy.Add(int64(time.Since(begun)))
		done.Add(1)
	}))
	defer backend.Close()
	g := startGateway(t, `
routes: [{path_prefix: /, backend: web}]
backends:
  - name: web
    dial: ["`+backend.Listener.Addr().String()+`"]
    concurrency: {max: 4, queue: 8, queue_timeout: 500ms}
    circuit_breaker: true
`)
	memory := func() float64 { return g.metric(t, "process_resident_memory_bytes") }
	var mu sync.Mutex
	var took []time.Duration
	var refused atomic.Int64
	offer := func(ctx context.Context, interval time.Duration) {
		var requests sync.WaitGroup
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for ctx.Err() == nil {
			<-ticker.C
			requests.Go(func() {
				begun := time.Now()
				got, err := do(g.client, g.request(t, "GET", "/", ""))
				switch {
				case err == nil && got.status == 200:
					mu.Lock()
					took = append(took, time.Since(begun))
					mu.Unlock()
				case err == nil && got.status == 503:
					refused.Add(1)
				default:
					t.Errorf("got %d, %v", got.status, err)
				}
			})
		}
		requests.Wait()
	}
	run := func() (elapsed time.Duration) {
		ctx, cancel := context.WithTimeout(t.Context(), duration)
		defer cancel()
		begun := time.Now()
		offer(ctx, work/(5*max))
		return time.Since(begun)
	}
	run() // warms up the gateway's buffers and connections
	used := memory()
	took, busy, done, refused = nil, atomic.Int64{}, atomic.Int64{}, atomic.Int64{}
	elapsed := run()

	offered := float64(int64(len(took))+refused.Load()) / elapsed.Seconds()
	capacity := float64(max) / (float64(busy.Load()) / float64(done.Load())) * float64(time.Second)
	goodput := float64(len(took)) / elapsed.Seconds()
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	t.Logf("offered %.0f/s, capacity %.0f/s, goodput %.0f/s; p99 of the admitted %v; memory %.1f MB, then %.1f MB",
		offered, capacity, goodput, p99, used/1e6, memory()/1e6)
	if most.Load() != max {
		t.Errorf("the backend had %d requests at once, want %d", most.Load(), max)
	}
	if goodput < .9*capacity {
		t.Errorf("goodput is %.0f/s, want at least nine tenths of %.0f/s", goodput, capacity)
	}
	if int64(len(took)) != done.Load() {
		t.Errorf("the backend has completed %d requests, and clients got %d of them", done.Load(), len(took))
	}
	if p99 > 500*time.Millisecond+10*work {
		t.Errorf("the slowest of the admitted took %v", p99)
	}
	if grown := memory() - used; grown > .25*used {
		t.Errorf("memory has grown by %.1f MB", grown/1e6)
	}
	if n := g.metric(t, "rgate_concurrency_in_flight") + g.metric(t, "rgate_concurrency_queued"); n != 0 {
		t.Errorf("in the end, %v requests are left", n)
	}
}
