package integration

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/websocket"

	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/stats"
)

// figures is the response of the statistics endpoint.
type figures struct {
	Requests struct {
		Success int `json:"success"`
		Error   int `json:"error"`
	} `json:"requests_count"`
	Latency struct {
		Average float64 `json:"average"`
		P95     float64 `json:"p95"`
		P99     float64 `json:"p99"`
	} `json:"latency_ms"`
	Bandwidth stats.Traffic      `json:"bandwidth_bytes"`
	ByRoute   map[string]figures `json:"by_route"`
	ByBackend map[string]figures `json:"by_backend"`
}

// stats fetches the statistics.
func (g *gateway) stats(t testing.TB, query string) (f figures) {
	t.Helper()
	got := g.get(t, "/stats"+query)
	if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/json" {
		t.Fatalf("/stats%s: got %d as %q, want 200 as application/json", query, got.status, got.header.Get("Content-Type"))
	}
	strict := json.NewDecoder(strings.NewReader(got.body))
	strict.DisallowUnknownFields()
	must(t, "reading "+got.body, strict.Decode(&f))
	return f
}

const statsGateway = `
default_response: {body: "This is not reachable", status_code: 403}
routes:
  - {path_prefix: /web, backend: web}
  - {path_prefix: /also-web, backend: web}
  - {path_prefix: /down, backend: down}
backends:
  - {name: web, match_labels: {app_name: $APP}}
  - {name: down, match_labels: {app_name: $APP, role: none}}
`

func TestStatsPage(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := startGateway(t, statsGateway)
	g.await(t, "web", 1)

	const zeros = `{"requests_count":{"success":0,"error":0},"latency_ms":{"average":0,"p95":0,"p99":0}}`
	if got := g.get(t, "/stats").body; got != zeros {
		t.Errorf("before the first request, the page is\n%s, want\n%s", got, zeros)
	}
	for target, n := range map[string]int{
		"/web": 3, "/web?status=201": 2, "/web?status=302": 1, "/web?status=304": 1, "/also-web": 4, // 11 successes
		"/web?status=400": 1, "/web?status=404": 2, "/web?status=500": 1, "/web?drop=1": 1, "/web?garbage=1": 1, // 6 errors
		"/down": 3, "/nowhere": 5, "/stats/": 1, // 9 errors, the last one from the default response
		"/stats": 7, "/stats?by=route": 2, "/stats?by=nothing": 1, // not counted
	} {
		for range n {
			g.get(t, target)
		}
	}
	talk(t, g, "/web/ws") // 101 is neither a success nor an error
	testkit.Eventually(t, "the WebSocket is counted as code 101", func() bool {
		return g.metric(t, "rgate_requests_total", "code", "101") == 1
	})

	text := g.get(t, "/stats").body
	number := `(\d+(?:\.\d{1,3})?)`
	shape := regexp.MustCompile(`^\{"requests_count":\{"success":11,"error":15\},"latency_ms":\{"average":` + number + `,"p95":` + number + `,"p99":` + number + `\}\}$`)
	found := shape.FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("the page is\n%s, want 11 successes, 15 errors and numbers with up to three decimals", text)
	}
	average, _ := strconv.ParseFloat(found[1], 64)
	p95, _ := strconv.ParseFloat(found[2], 64)
	p99, _ := strconv.ParseFloat(found[3], 64)
	if average <= 0 || p95 <= 0 || p99 < p95 {
		t.Errorf("average %v, p95 %v and p99 %v cannot be", average, p95, p99)
	}
	for _, window := range []string{"1m", "5m", "1h"} {
		if got := g.stats(t, "?window="+window).Requests; got.Success != 11 || got.Error != 15 {
			t.Errorf("within %s: got %v, want all requests", window, got)
		}
	}
	if got := g.get(t, "/stats?window=2m"); got.status != http.StatusBadRequest {
		t.Errorf("?window=2m: got %d, want 400 for an unknown window", got.status)
	}
	wantGroups(t, g.stats(t, "?by=route").ByRoute, map[string][2]int{"/web": {7, 6}, "/also-web": {4, 0}, "/down": {0, 3}, "_default": {0, 6}})
	wantGroups(t, g.stats(t, "?by=backend").ByBackend, map[string][2]int{"web": {11, 6}, "down": {0, 3}, "_none": {0, 6}})
}

// wantGroups compares the numbers of successes and errors by name.
func wantGroups(t *testing.T, got map[string]figures, want map[string][2]int) {
	t.Helper()
	for name, counts := range want {
		if f := got[name].Requests; f.Success != counts[0] || f.Error != counts[1] {
			t.Errorf("%s: got %d successes and %d errors, want %d and %d", name, f.Success, f.Error, counts[0], counts[1])
		}
	}
	if len(got) != len(want) {
		t.Errorf("got figures of %v, want %d names", sortedKeys(got), len(want))
	}
}

// talk opens a WebSocket, exchanges a message, and closes it.
func talk(t *testing.T, g *gateway, target string) {
	t.Helper()
	conn, err := websocket.Dial("ws://"+g.address()+target, "", "http://gateway.example")
	must(t, "opening a WebSocket", err)
	must(t, "sending", websocket.Message.Send(conn, "hello"))
	var got string
	must(t, "receiving", websocket.Message.Receive(conn, &got))
	if got != "hello" {
		t.Errorf("the WebSocket echoed %q, want hello", got)
	}
	must(t, "closing the WebSocket", conn.Close())
}

func TestStatsLatency(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := startGateway(t, statsGateway)
	g.await(t, "web", 1)
	var clients sync.WaitGroup
	for range 40 {
		clients.Go(func() { g.get(t, "/web?delay=200ms") })
	}
	clients.Wait()
	// The gateway's latency includes the backend's. The sketch has an error of 1%.
	if got := g.stats(t, "").Latency; got.Average < 200 || got.P95 < 198 || got.P99 < 198 || got.P99 < got.P95 {
		t.Errorf("got %+v of requests that take 200 ms at least", got)
	}
}

func TestStatsPathCanBeMovedAndTurnedOff(t *testing.T) {
	t.Parallel()
	moved := startGateway(t, "stats: {path: /figures}\ndefault_response: {status_code: 410}")
	if got := moved.get(t, "/figures"); !strings.HasPrefix(got.body, `{"requests_count":`) {
		t.Errorf("the moved page: got %d with %q", got.status, got.body)
	}
	if got := moved.get(t, "/stats"); got.status != http.StatusGone {
		t.Errorf("/stats: got %d where the page was moved away, want the default response", got.status)
	}
	off := startGateway(t, "stats: false\ndefault_response: {status_code: 410}")
	if got := off.get(t, "/stats"); got.status != http.StatusGone {
		t.Errorf("/stats: got %d where the page is turned off, want the default response", got.status)
	}
}

// Every request must be counted exactly once, regardless of its outcome.
func TestTenThousandRequestsAreCountedExactly(t *testing.T) {
	startContainer(t, spec{})
	startContainer(t, spec{})
	g := startGateway(t, statsGateway)
	g.await(t, "web", 2)
	const clients, each = 20, 500
	targets := []string{"/web", "/nowhere", "/web", "/down", "/also-web?status=302", "/web?status=500"}
	var success, failure, other atomic.Int64
	var wait sync.WaitGroup
	for c := range clients {
		client := newClient(t)
		wait.Go(func() {
			for i := range each {
				got, err := do(client, g.request(t, "GET", targets[(c+i)%len(targets)], ""))
				switch {
				case err == nil && (got.status == 200 || got.status == 302):
					success.Add(1)
				case err == nil && (got.status == 403 || got.status == 500 || got.status == 503):
					failure.Add(1)
				default:
					other.Add(1)
					t.Errorf("got %d and %v", got.status, err)
				}
			}
		})
	}
	wait.Wait()
	if success.Load() == 0 || failure.Load() == 0 || success.Load()+failure.Load() != clients*each {
		t.Fatalf("the clients saw %d successes, %d errors and %d others of %d", success.Load(), failure.Load(), other.Load(), clients*each)
	}
	got := g.stats(t, "?by=route").Requests
	if int64(got.Success) != success.Load() || int64(got.Error) != failure.Load() {
		t.Errorf("the gateway counted %d successes and %d errors, the clients %d and %d",
			got.Success, got.Error, success.Load(), failure.Load())
	}
	if got := g.metric(t, "rgate_requests_total"); got != clients*each {
		t.Errorf("the metrics count %v requests, want %d", got, clients*each)
	}
}
