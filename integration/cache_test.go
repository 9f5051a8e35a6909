package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

// cacheBackend responds as the query requests: ?cc= sets Cache-Control, ?h=Name:value
// other header fields, ?status= the status. The body contains the number of the request.
type cacheBackend struct {
	*httptest.Server
	asked  atomic.Int64
	status atomic.Int64 // overrides the requested status if not 0
}

func startCacheBackend(t *testing.T) *cacheBackend {
	t.Helper()
	b := new(cacheBackend)
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, q, h := b.asked.Add(1), r.URL.Query(), w.Header()
		for _, line := range q["h"] {
			name, value, _ := strings.Cut(line, ":")
			h.Add(name, value)
		}
		if cc := q.Get("cc"); cc != "" {
			h.Set("Cache-Control", cc)
		}
		if etag := h.Get("Etag"); etag != "" && r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		status := 200
		_, _ = fmt.Sscan(q.Get("status"), &status)
		if forced := int(b.status.Load()); forced != 0 {
			status = forced
		}
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			_, _ = fmt.Fprintf(w, "%d for %s%s", n, r.Header.Get("X-Consumer-Username"), r.Header.Get("Cookie"))
		}
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *cacheBackend) address() string { return b.Listener.Addr().String() }

// wants fails the test unless the response has the given status and body, and
// Cache-Status contains cacheStatus.
func (a response) wants(t testing.TB, what string, status int, body, cacheStatus string) {
	t.Helper()
	if got := a.header.Get("Cache-Status"); a.status != status || a.body != body || !strings.Contains(got, cacheStatus) {
		t.Errorf("%s: got %d %q %q, want %d %q %q", what, a.status, a.body, got, status, body, cacheStatus)
	}
}

const cachedGateway = `
name: edge
cache: {ttl: 1h, stale_if_error: 1h}
routes:
  - {path_prefix: /, backend: web}
  - {path_prefix: /keyed, backend: web, api_key: {keys: [{name: alice, sha256: ` + secretKeyHash + `}]}}
  - {path_prefix: /off, backend: web, cache: false}
backends:
  - {name: web, dial: ["$BACKEND"]}
`

func TestCache(t *testing.T) {
	t.Parallel()
	backend := startCacheBackend(t)
	g := startGateway(t, strings.ReplaceAll(cachedGateway, "$BACKEND", backend.address()))

	g.get(t, "/a").wants(t, "first", 200, "1 for ", "rgate; fwd=uri-miss; stored")
	got := g.get(t, "/a")
	got.wants(t, "second", 200, "1 for ", "rgate; hit; ttl=")
	if got.header.Get("Age") == "" || got.length != int64(len("1 for ")) || got.header.Get("Server") != "" {
		t.Errorf("a hit has %v and length %d", got.header, got.length)
	}
	g.ask(t, "HEAD", "/a", "").wants(t, "HEAD", 200, "", "hit")
	g.ask(t, "GET", "/a", "", "Range", "bytes=0-0").wants(t, "range", 206, "1", "hit")
	g.ask(t, "GET", "/a", "", "Cookie", "session=1").wants(t, "cookie", 200, "2 for session=1", "fwd=bypass")
	g.ask(t, "GET", "/b", "", "Cache-Control", "only-if-cached").wants(t, "only-if-cached", 504, "Gateway Timeout\n", "")
	g.ask(t, "POST", "/a", "x").wants(t, "POST", 200, "3 for ", "fwd=method")
	g.get(t, "/a").wants(t, "after POST", 200, "4 for ", "uri-miss")
	g.get(t, "/off/a").wants(t, "off", 200, "5 for ", "")
	g.get(t, "/off/a").wants(t, "off", 200, "6 for ", "")

	const tagged = "/t?cc=max-age=60,stale-if-error=60&h=Age:70&h=Etag:%22x%22&h=Cache-Tag:shop"
	g.get(t, tagged).wants(t, "stale at once", 200, "7 for ", "stored")
	g.get(t, tagged).wants(t, "validated", 200, "7 for ", "fwd=stale; fwd-status=304; stored")
	g.ask(t, "GET", tagged, "", "If-None-Match", `"x"`).wants(t, "condition", 304, "", "fwd-status=304")
	backend.status.Store(500)
	g.get(t, "/a").wants(t, "fresh while the backend fails", 200, "4 for ", "hit")
	g.get(t, "/b").wants(t, "unknown while the backend fails", 500, "10 for ", "uri-miss")
	backend.status.Store(0)

	if n := g.purge(t, `{"tag": "shop"}`); n != 1 {
		t.Errorf("%d responses had the tag", n)
	}
	if n := g.purge(t, `{"prefix": "http://`+g.address()+`/a"}`); n != 1 {
		t.Errorf("%d responses had the prefix", n)
	}
	g.get(t, "/a").wants(t, "after a purge", 200, "11 for ", "uri-miss")
	if n := g.purge(t, `{"url": "/a"}`); n != 1 {
		t.Errorf("%d responses had the URL", n)
	}

	if hits := g.metric(t, "rgate_cache_requests_total", "gateway", "edge", "result", "hit"); hits != 4 {
		t.Errorf("%v hits are counted", hits)
	}
	var totals struct {
		CacheHits uint64 `json:"cache_hits"`
	}
	response, err := g.client.Get(g.adminURL("/rgate/gateway/metrics"))
	must(t, "asking for figures", err)
	defer response.Body.Close()
	must(t, "reading figures", json.NewDecoder(response.Body).Decode(&totals))
	if totals.CacheHits != 6 { // two were revalidated
		t.Errorf("the figures have %d hits", totals.CacheHits)
	}
}

// purge calls the cache's purge endpoint and returns the number of removed responses.
func (g *gateway) purge(t testing.TB, request string) int {
	t.Helper()
	response, err := g.client.Post(g.adminURL("/rgate/cache/purge"), "application/json", strings.NewReader(request))
	must(t, "purging", err)
	defer response.Body.Close()
	var purged struct{ Purged int }
	if err := json.NewDecoder(response.Body).Decode(&purged); err != nil || response.StatusCode != 200 {
		t.Fatalf("purging %s: %s, %v", request, response.Status, err)
	}
	return purged.Purged
}

// Responses to requests with an API key are stored only if they are public.
func TestCacheAndKeys(t *testing.T) {
	t.Parallel()
	backend := startCacheBackend(t)
	g := startGateway(t, strings.ReplaceAll(cachedGateway, "$BACKEND", backend.address()))
	for i, target := range []string{"/keyed/silent", "/keyed/aged?cc=max-age=60"} {
		for j := range 2 {
			want := fmt.Sprintf("%d for alice", 2*i+j+1)
			g.ask(t, "GET", target, "", "X-API-Key", secretKey).wants(t, target, 200, want, "fwd=")
		}
	}
	g.ask(t, "GET", "/keyed/public?cc=public,max-age=60", "", "X-API-Key", secretKey).wants(t, "public", 200, "5 for alice", "stored")
	g.ask(t, "GET", "/keyed/public?cc=public,max-age=60", "", "X-API-Key", secretKey).wants(t, "public", 200, "5 for alice", "hit")
	if got := g.get(t, "/keyed/public?cc=public,max-age=60"); got.status != http.StatusUnauthorized {
		t.Errorf("without a key, got %d %q", got.status, got.body)
	}
}

func TestCacheOutlivesReloadsAndBackends(t *testing.T) {
	t.Parallel()
	backend := startCacheBackend(t)
	config := strings.ReplaceAll(cachedGateway, "$BACKEND", backend.address()) + "admin: localhost:$ADMIN\n"
	g := startGateway(t, config)
	const stale = "/s?cc=max-age=60,stale-if-error=600&h=Age:70"
	g.get(t, "/a").wants(t, "before", 200, "1 for ", "stored")
	g.get(t, stale).wants(t, "before", 200, "2 for ", "stored")
	for n := range 2 {
		g.write(t, config+fmt.Sprintf("default_response: {body: version %d}\n", n))
		g.reload(t)
	}
	g.get(t, "/a").wants(t, "after reloads", 200, "1 for ", "hit")
	backend.Close()
	g.get(t, "/a").wants(t, "fresh without a backend", 200, "1 for ", "hit")
	g.get(t, stale).wants(t, "stale without a backend", 200, "2 for ", "fwd=stale; detail=stale-if-error")
	if got := g.get(t, "/never"); got.status != http.StatusServiceUnavailable {
		t.Errorf("what is not stored: got %d", got.status)
	}
}

// Clients receive the stale response while one request revalidates it through the
// gateway's own handler chain.
func TestCacheValidatesInTheBackground(t *testing.T) {
	t.Parallel()
	backend := startCacheBackend(t)
	g := startGateway(t, strings.ReplaceAll(cachedGateway, "$BACKEND", backend.address()))
	const target = "/w?cc=max-age=60,stale-while-revalidate=600&h=Age:70"
	g.get(t, target).wants(t, "first", 200, "1 for ", "stored")
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 20 {
				got, err := do(g.client, g.request(t, "GET", target, ""))
				if said := got.header.Get("Cache-Status"); err != nil || got.status != 200 || !strings.HasPrefix(said, "rgate; hit; ttl=-1") || !strings.HasSuffix(said, "; detail=stale-while-revalidate") {
					t.Errorf("got %d %q %v", got.status, said, err)
				}
			}
		})
	}
	clients.Wait()
	testkit.Eventually(t, "a new response is stored", func() bool { return g.get(t, target).body != "1 for " })
	if n := backend.asked.Load(); n > 3 { // each response is stale immediately and is revalidated a second later
		t.Errorf("the backend was asked %d times", n)
	}
}

// The cache directive works without a gateway in a Caddyfile, before reverse_proxy.
func TestCacheDirective(t *testing.T) {
	t.Parallel()
	backend := startCacheBackend(t)
	g := launch(t, "Caddyfile", strings.ReplaceAll(`{
	admin localhost:$ADMIN
	metrics
}
:$PORT {
	rgate_cache 1h {
		max_bytes 1MiB
		key       {header.X-Tenant}
	}
	reverse_proxy $BACKEND
}
`, "$BACKEND", backend.address()), nil, "run", "--config", "$FILE")
	asked := backend.asked.Load() // the number of requests before the test
	g.ask(t, "GET", "/a", "", "X-Tenant", "a").wants(t, "a", 200, fmt.Sprintf("%d for ", asked+1), "stored")
	g.ask(t, "GET", "/a", "", "X-Tenant", "b").wants(t, "b", 200, fmt.Sprintf("%d for ", asked+2), "stored")
	g.ask(t, "GET", "/a", "", "X-Tenant", "a").wants(t, "a", 200, fmt.Sprintf("%d for ", asked+1), "hit")
	if n := g.metric(t, "rgate_cache_entries"); n != 2 {
		t.Errorf("%v responses are stored", n)
	}
}
