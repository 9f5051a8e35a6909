package integration

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

// load replaces the configuration through the admin API.
func (g *gateway) load(t testing.TB, yaml string) {
	t.Helper()
	response, err := g.client.Post(g.adminURL("/load"), "text/rgate", strings.NewReader(yaml))
	must(t, "loading a configuration", err)
	defer response.Body.Close()
	if text, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK {
		t.Fatalf("loading a configuration: status %d, %s", response.StatusCode, text)
	}
}

var heapAlloc = regexp.MustCompile(`# HeapAlloc = (\d+)`)

// heap returns the size of live heap objects in bytes after garbage collection. It waits
// until the size stops shrinking, because the previous configuration may still be
// shutting down.
func (g *gateway) heap(t testing.TB) int {
	t.Helper()
	least, same := 1<<62, 0
	testkit.Eventually(t, "the heap shrinks no more", func() bool {
		response, err := g.client.Get(g.adminURL("/debug/pprof/heap?gc=1&debug=1"))
		must(t, "reading the heap", err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		must(t, "reading the heap", err)
		found := heapAlloc.FindSubmatch(text)
		if found == nil {
			t.Fatalf("no HeapAlloc in %.200s", text)
		}
		n, err := strconv.Atoi(string(found[1]))
		must(t, "reading the heap", err)
		if same++; n < least-least/100 {
			least, same = n, 0
		}
		return same >= 3
	})
	return least
}

// Policies share one log sampler. A sampler of 448 KB per policy took 225 MB for 500
// routes, and 6.6 GB for 5,000 routes with three policies.
func TestF6PoliciesOnManyRoutesTakeLittleMemory(t *testing.T) {
	t.Parallel()
	const limit = 8 << 10 // bytes per route and policy
	var g *gateway
	config := func(routes int, policies string, number int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "listen: \":%d\"\nadmin: localhost:%d\nbackends: [{name: b, dial: [\"127.0.0.1:9\"]}]\nroutes:\n", g.port, g.admin)
		for i := range routes {
			fmt.Fprintf(&b, "- {path_prefix: /%d, backend: b%s, methods: [GET, M%d]}\n", i, policies, number)
		}
		return b.String()
	}
	g = startGateway(t, "backends: [{name: b, dial: [\"127.0.0.1:9\"]}]\nroutes: [{path_prefix: /, backend: b}]")

	routes, many := 500, 5000
	if raceDetector { // the race detector is ten times slower
		routes, many = 100, 1000
	}
	g.load(t, config(routes, "", 0))
	without := g.heap(t)
	for _, policy := range []string{
		`jwt: {algorithms: [HS256], secret: "0123456789012345678901234567890123456789"}`,
		`api_key: {keys: [{name: a, sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}`,
		`transform: {response: {body: {delete: [secret]}}}`, `coalesce: true`, `cache: {ttl: 30s}`,
		`throttle: {requests: 9, window: 1s}`, `circuit_breaker: {}`, `fallback: {cached: 10m}`, `security: {}`,
	} {
		g.load(t, config(routes, ", "+policy, 0))
		if each := (g.heap(t) - without) / routes; each > limit {
			t.Errorf("%s: %d bytes per route, want at most %d", policy, each, limit)
		}
	}

	const three = `, rate_limit: {requests: 100, window: 60s}, cors: {allowed_origins: ["https://a.example"]}, ip_filter: {allow: [private_ranges]}`
	g.load(t, config(many, "", 0))
	without = g.heap(t)
	g.load(t, config(many, three, 0))
	if each := (g.heap(t) - without) / (3 * many); each > limit {
		t.Errorf("%d routes with three policies: %d bytes for each, want at most %d", many, each, limit)
	}

	g.load(t, config(300, three, 0))
	before := g.heap(t)
	for number := range 8 {
		g.load(t, config(300, three, number+1))
	}
	if after := g.heap(t); after > before+before/4 {
		t.Errorf("eight reloads took the heap from %d to %d bytes", before, after)
	}
}
