package integration

import (
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

	"golang.org/x/net/websocket"

	"github.com/rgate/rgate/internal/testkit"
)

// The values of the circuit breaker's state metric.
const (
	breakerClosed   = 0
	breakerHalfOpen = 1
	breakerOpen     = 2
)

func (g *gateway) awaitBreaker(t *testing.T, backend string, state float64) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("the breaker of %s is %v", backend, state), func() bool {
		return g.metric(t, "rgate_circuit_breaker_state", "backend", backend) == state
	})
}

func wantStatus(t *testing.T, what string, got response, status int) {
	t.Helper()
	if got.status != status {
		t.Fatalf("%s: got %d, want %d", what, got.status, status)
	}
}

func mustRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, "making a request", err)
	return request
}

func TestCircuitBreakerWithAContainer(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{})
	g := startGateway(t, `
routes: [{path_prefix: /, backend: web}]
backends: [{name: web, match_labels: {app_name: $APP}, circuit_breaker: {recovery: 1s}}]
`)
	g.await(t, "web", 1)
	wantSeen := func(what string, total int) {
		t.Helper()
		if got := web.counts(t).Total; got != total {
			t.Fatalf("%s: the container has seen %d requests, want %d", what, got, total)
		}
	}
	for range 5 {
		wantStatus(t, "a failure", g.get(t, "/?status=500"), 500)
	}
	refused := g.get(t, "/")
	wantDown(t, "the sixth", refused)
	wantSeen("the sixth", 5)
	wantReported := func(parts ...string) {
		t.Helper()
		services, err := do(g.client, mustRequest(t, g.adminURL("/rgate/gateway/services")))
		must(t, "asking for services", err)
		for _, part := range parts {
			if !strings.Contains(services.body, part) {
				t.Errorf("the operations endpoint does not report %s: %s", part, services.body)
			}
		}
	}
	wantReported(`"state":"open","retry_after_seconds":`, `"status":"unhealthy"`)
	g.awaitBreaker(t, "web", breakerHalfOpen)
	wantReported(`"state":"half_open"`, `"status":"degraded"`) // before the first probe
	statuses := make(chan int, 20)
	for range cap(statuses) {
		go func() {
			got, _ := do(g.client, g.request(t, "GET", "/?delay=300ms&status=500", ""))
			statuses <- got.status
		}()
	}
	tally := make(map[int]int)
	for range cap(statuses) {
		tally[<-statuses]++
	}
	if tally[500] != 1 || tally[503] != 19 {
		t.Fatalf("half-open: got %v, want one probe that fails, and 503 for the others", tally)
	}
	wantSeen("half-open", 6)
	wantDown(t, "after a probe that failed", g.get(t, "/"))
	wantSeen("open again", 6)

	g.awaitBreaker(t, "web", breakerHalfOpen)
	wantStatus(t, "the second probe", g.get(t, "/"), 200)
	g.awaitBreaker(t, "web", breakerClosed)
	for _, status := range []int{500, 500, 500, 500, 200, 503, 503, 503, 503, 404, 500, 500, 500, 500} {
		wantStatus(t, "four failures, then a success", g.get(t, fmt.Sprintf("/?status=%d", status)), status)
	}
	g.awaitBreaker(t, "web", breakerClosed)
	for state, want := range map[string]float64{"open": 2, "half_open": 2, "closed": 1} {
		if got := g.metric(t, "rgate_circuit_breaker_transitions_total", "backend", "web", "state", state); got != want {
			t.Errorf("it was %s %v times, want %v", state, got, want)
		}
	}
	if n := strings.Count(g.output.String(), "circuit breaker changed"); n != 5 {
		t.Errorf("%d changes are logged, want 5", n)
	}
	if got := g.metric(t, "rgate_refused_requests_total", "policy", "circuit_breaker"); got < 21 {
		t.Errorf("%v requests were refused, want 21 at least", got)
	}
}

// silentBackend returns the address of a server that accepts connections and sends
// nothing.
func silentBackend(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, "listening", err)
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

func TestCircuitBreakerCountsOnlyTheBackendsFaults(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{labels: map[string]string{"role": "web"}})
	startContainer(t, spec{labels: map[string]string{"role": "refuses", "rgate.port": "8081"}})
	g := startGateway(t, strings.ReplaceAll(`
circuit_breaker: {failures: 3, recovery: 1h}
routes:
  - {path_prefix: /drops, backend: drops}
  - {path_prefix: /refuses, backend: refuses}
  - {path_prefix: /silent, backend: silent}
  - {path_prefix: /garbage, backend: garbage}
  - {path_prefix: /none, backend: none}
  - {path_prefix: /fine, backend: fine}
backends:
  - {name: drops, match_labels: {app_name: $APP, role: web}}
  - {name: refuses, match_labels: {app_name: $APP, role: refuses}}
  - {name: silent, dial: ["$SILENT"], timeouts: {first_byte: 50ms}}
  - {name: garbage, match_labels: {app_name: $APP, role: web}}
  - {name: none, match_labels: {app_name: $APP, role: none}}
  - {name: fine, match_labels: {app_name: $APP}}
`, "$SILENT", silentBackend(t)))
	g.await(t, "refuses", 1)
	g.await(t, "drops", 1)
	g.await(t, "fine", 2)
	for target, status := range map[string]int{
		"/refuses": 503, "/drops?drop=1": 503, "/silent": 504, "/garbage?garbage=1": 502,
	} {
		backend, _, _ := strings.Cut(strings.TrimLeft(target, "/"), "?")
		for range 3 {
			wantStatus(t, target, g.get(t, target), status)
		}
		g.awaitBreaker(t, backend, breakerOpen)
		wantStatus(t, target, g.get(t, target), 503)
	}
	for range 20 {
		wantStatus(t, "without a container", g.get(t, "/none"), 503)
	}
	g.awaitBreaker(t, "none", breakerClosed)

	for range 20 {
		// One of the two containers refuses connections, so the other one is tried.
		wantStatus(t, "not found", g.get(t, "/fine?status=404"), 404)
	}
	for range 5 {
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, err := do(g.client, g.request(t, "GET", "/fine?delay=1h", "").WithContext(ctx))
			left <- err
		}()
		testkit.Eventually(t, "the request is under way", func() bool { return g.metric(t, "rgate_requests_in_flight", "backend", "fine") == 1 })
		leave()
		<-left
		testkit.Eventually(t, "the gateway has seen the client leave", func() bool { return g.metric(t, "rgate_requests_in_flight", "backend", "fine") == 0 })
	}
	for range 5 {
		conn, err := net.Dial("tcp", g.address())
		must(t, "dialing", err)
		_, err = io.WriteString(conn, "POST /fine HTTP/1.1\r\nHost: example.com\r\nContent-Length: 1000000\r\n\r\nthe beginning")
		must(t, "sending half a request", err)
		testkit.Eventually(t, "the request is under way", func() bool { return g.metric(t, "rgate_requests_in_flight", "backend", "fine") == 1 })
		_ = conn.Close()
		testkit.Eventually(t, "the gateway has seen the client leave", func() bool { return g.metric(t, "rgate_requests_in_flight", "backend", "fine") == 0 })
	}
	if got := g.metric(t, "rgate_circuit_breaker_state", "backend", "fine"); got != breakerClosed {
		t.Errorf("what clients do has opened the breaker: %v", got)
	}
	wantStatus(t, "after all that", g.get(t, "/fine"), 200)
}

func TestCircuitBreakerOutlivesAReload(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer backend.Close()
	config := `admin: localhost:$ADMIN
default_response: {status_code: 410, body: version %d}
routes: [{path_prefix: /web, backend: web}]
backends: [{name: web, dial: ["` + backend.Listener.Addr().String() + `"], circuit_breaker: {failures: 2, recovery: %s}}]
`
	g := startGateway(t, fmt.Sprintf(config, 0, "1h"))
	for range 2 {
		wantStatus(t, "a failure", g.get(t, "/web"), 500)
	}
	for version := 1; version <= 2; version++ {
		g.write(t, fmt.Sprintf(config, version, "1h"))
		g.reload(t)
		g.awaitVersion(t, version)
		got := g.get(t, "/web")
		if got.status != 503 || got.header.Get("Retry-After") != "3600" && got.header.Get("Retry-After") > "3599" || asked.Load() != 2 {
			t.Errorf("after a reload: got %d, Retry-After %s, the backend was asked %d times", got.status, got.header.Get("Retry-After"), asked.Load())
		}
	}
	g.write(t, fmt.Sprintf(config, 3, "2h")) // other options create another breaker
	g.reload(t)
	g.awaitVersion(t, 3)
	wantStatus(t, "with other options", g.get(t, "/web"), 500)
}

func TestCircuitBreakerPerContainer(t *testing.T) {
	t.Parallel()
	var sick atomic.Bool
	var asked [2]atomic.Int64
	sick.Store(true)
	servers := make([]*httptest.Server, 2)
	for i := range servers {
		servers[i] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked[i].Add(1)
			if i == 0 && sick.Load() || r.URL.Path == "/fail" {
				w.WriteHeader(http.StatusBadGateway)
			}
		}))
		defer servers[i].Close()
	}
	g := startGateway(t, strings.ReplaceAll(`
routes: [{path_prefix: /, backend: web}, {path_prefix: /soon, backend: soon}]
backends:
  - {name: web, dial: [$DIAL], lb_policy: round_robin, circuit_breaker: {failures: 2, per_container: true}}
  - {name: soon, dial: [$DIAL], lb_policy: round_robin, circuit_breaker: {failures: 2, recovery: 100ms, per_container: true}}
`, "$DIAL", fmt.Sprintf("%q, %q", servers[0].Listener.Addr(), servers[1].Listener.Addr())))
	for _, target := range []string{"/", "/soon"} {
		tally := make(map[int]int)
		for range 4 {
			tally[g.get(t, target).status]++
		}
		if tally[502] != 2 || tally[200] != 2 {
			t.Fatalf("%s: got %v, want half of them to fail", target, tally)
		}
	}
	if got := g.metric(t, "rgate_circuit_breaker_open_containers", "backend", "web"); got != 1 {
		t.Errorf("%v containers are open, want 1", got)
	}
	before := asked[0].Load()
	for range 20 {
		wantStatus(t, "around the sick one", g.get(t, "/"), 200)
	}
	if asked[0].Load() != before {
		t.Error("the sick one was asked")
	}
	sick.Store(false)
	testkit.Eventually(t, "the one that is well again gets requests", func() bool {
		wantStatus(t, "while it comes back", g.get(t, "/soon"), 200)
		return asked[0].Load() > before+2
	})
	for range 2 {
		wantStatus(t, "the other one fails, too", g.get(t, "/fail"), 502)
	}
	if got := g.get(t, "/"); got.status != 503 || got.header.Get("Retry-After") < "50" {
		t.Errorf("both are open: got %d, Retry-After %s", got.status, got.header.Get("Retry-After"))
	}
}

func TestCircuitBreakerLetsProtocolsPass(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := startGateway(t, `
circuit_breaker: {failures: 1}
routes: [{path_prefix: /, backend: web}, {path_prefix: /single, backend: single}]
backends: [{name: web, match_labels: {app_name: $APP}}, {name: single, match_labels: {app_name: $APP}, circuit_breaker: {failures: 1, per_container: true}}]
`)
	g.await(t, "single", 1)
	for _, path := range []string{"", "/single"} {
		conn, err := websocket.Dial("ws://"+g.address()+path+"/ws", "", "http://elsewhere.example")
		must(t, "opening a WebSocket", err)
		must(t, "sending", websocket.Message.Send(conn, "hello"))
		var got string
		must(t, "receiving", websocket.Message.Receive(conn, &got))
		must(t, "closing", conn.Close())
		response, err := g.client.Do(g.request(t, "GET", path+"/sse?n=2&every=1h", ""))
		must(t, "asking for events", err)
		line := make([]byte, 3)
		if _, err := io.ReadFull(response.Body, line); err != nil || string(line) != "id:" {
			t.Errorf("the first event: %q, %v", line, err)
		}
		_ = response.Body.Close()
		wantStatus(t, "a large response", g.get(t, path+"/?bytes=1000000"), 200)
		if got, err := do(g.client, g.request(t, "GET", path+"/?cut=1000", "")); err == nil {
			t.Errorf("a response that breaks off: got %+v", got)
		}
		wantStatus(t, "in the end", g.get(t, path+"/"), 200)
	}
}

func TestCircuitBreakerInAnySite(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer backend.Close()
	g := launch(t, "Caddyfile", `{
	admin localhost:$ADMIN
}
:$PORT {
	handle /a {
		rgate_circuit_breaker 2 1h
		reverse_proxy `+backend.Listener.Addr().String()+`
	}
	handle /b {
		rgate_circuit_breaker 2 1h
		rgate_concurrency 10
		reverse_proxy 127.0.0.1:1
	}
	handle {
		rgate_circuit_breaker 2 1h
		respond ok
	}
}
`, nil, "run", "--config", "$FILE")
	for path, status := range map[string]int{"/a": 500, "/b": 502} {
		for range 2 {
			wantStatus(t, path, g.get(t, path), status)
		}
		if got := g.get(t, path); got.status != 503 || got.header.Get("Retry-After") < "3590" || got.body != "Service Unavailable\n" {
			t.Errorf("%s: got %+v", path, got)
		}
	}
	wantStatus(t, "another one", g.get(t, "/"), 200)
	if asked.Load() != 2 {
		t.Errorf("the backend was asked %d times", asked.Load())
	}
}

// The retry budget limits the retries to a fifth of the requests.
func TestRetryBudget(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	var servers []string
	for range 3 {
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			asked.Add(1)
			panic(http.ErrAbortHandler)
		}))
		defer server.Close()
		servers = append(servers, fmt.Sprintf("%q", server.Listener.Addr()))
	}
	g := startGateway(t, `
routes: [{path_prefix: /, backend: web}]
backends: [{name: web, dial: [`+strings.Join(servers, ", ")+`], retry_budget: {ratio: 0.2, min_per_second: 0}}]
`)
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for range 50 {
				if got, err := do(g.client, g.request(t, "GET", "/", "")); err != nil || got.status != 503 {
					t.Errorf("got %d, %v", got.status, err)
				}
			}
		})
	}
	clients.Wait()
	if n := asked.Load(); n < 201 || n > 240 {
		t.Errorf("200 requests became %d attempts, want at most a fifth more", n)
	}
}

// An open breaker stays open over consecutive reloads without requests in between. Its
// state must survive although no handler reads it.
func TestOpenBreakerOutlivesIdleReloads(t *testing.T) {
	t.Parallel()
	var seen atomic.Int64
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		seen.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	}))
	t.Cleanup(backend.Close)
	config := func(n int) string {
		return fmt.Sprintf(`admin: localhost:$ADMIN
default_response: {status_code: 410, body: version %d}
routes: [{path_prefix: /web, backend: web}, {path_prefix: /each, backend: each}, {path_prefix: /%d, backend: web}]
backends:
  - {name: web, dial: [%[3]q], circuit_breaker: {recovery: 1h}}
  - {name: each, dial: [%[3]q], circuit_breaker: {recovery: 1h, per_container: true}}
`, n, n, backend.Listener.Addr())
	}
	g := startGateway(t, config(0))
	for range 5 {
		wantStatus(t, "a failure", g.get(t, "/web"), 500)
		wantStatus(t, "a failure", g.get(t, "/each"), 500)
	}
	for n := 1; n <= 5; n++ {
		g.write(t, config(n))
		g.reload(t)
		g.awaitVersion(t, n)
	}
	if got := g.metric(t, "rgate_circuit_breaker_state", "backend", "web"); got != breakerOpen {
		t.Errorf("the metric is %v", got)
	}
	if got := g.metric(t, "rgate_circuit_breaker_open_containers", "backend", "each"); got != 1 {
		t.Errorf("%v containers are open", got)
	}
	if got := g.metric(t, "rgate_circuit_breaker_transitions_total", "backend", "web", "state", "open"); got != 1 {
		t.Errorf("it was opened %v times", got)
	}
	services, err := do(g.client, mustRequest(t, g.adminURL("/rgate/gateway/services")))
	must(t, "asking for services", err)
	if !strings.Contains(services.body, `"state":"open","retry_after_seconds":`) || !strings.Contains(services.body, backend.Listener.Addr().String()+`":"open"`) {
		t.Errorf("the operations endpoint does not report it: %s", services.body)
	}
	wantStatus(t, "after the reloads", g.get(t, "/web"), 503)
	wantStatus(t, "after the reloads, per container", g.get(t, "/each"), 503)
	if got := seen.Load(); got != 10 {
		t.Errorf("the backend has seen %d requests, want 10", got)
	}
}
