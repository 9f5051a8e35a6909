package cache

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/policy"
)

// The stale response is served immediately, and a single request validates it.
func TestCacheValidatesInTheBackground(t *testing.T) {
	rig := cacheNewRig(t, new(Cache))
	var seen atomic.Pointer[http.Request]
	rig.around = func(next caddyhttp.HandlerFunc) caddyhttp.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) error {
			caddyhttp.SetVar(r.Context(), policy.RequestStateVar, cachePlaced{policy.RouteInfo{Gateway: "edge", Route: "/", Backend: "web"}})
			r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).Set("http.auth.user.id", "alice")
			return next(w, r)
		}
	}
	proxy := rig.proxy
	rig.proxy = cacheLooking{proxy, func(r *http.Request) { seen.Store(r) }}
	rig.run(`
		< 200 | Cache-Control: public, max-age=60, stale-while-revalidate=60 | Age: 70 | ETag: "1" | =a
		> GET /a?b`)
	proceed := make(chan struct{})
	rig.expect(func(w http.ResponseWriter, r *http.Request) {
		<-proceed
		cacheResponse([]string{"Cache-Control: public, max-age=60", `ETag: "2"`, "=b"})(w, r)
	})
	for range 10 {
		got := rig.ask("HEAD /a?b", "Range: bytes=0-0", "If-None-Match: x")
		if status := got.header.Get("Cache-Status"); got.status != 200 || !strings.Contains(status, "hit; ttl=-") || !strings.Contains(status, "stale-while-revalidate") {
			t.Fatalf("got %d %q", got.status, status)
		}
	}
	close(proceed)
	testkit.Eventually(t, "the new response is stored", func() bool { return rig.ask("GET /a?b").body == "b" })
	asked := rig.taken()
	if len(asked) != 1 {
		t.Fatalf("the backend was asked %d times", len(asked))
	}
	if r := asked[0]; r.Method != http.MethodGet || r.Header.Get("If-None-Match") != `"1"` || r.Header.Get("Range") != "" || r.RequestURI != "/a?b" {
		t.Errorf("the backend got %s %s %v", r.Method, r.RequestURI, r.Header)
	}
	r := seen.Load()
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if got := repl.ReplaceAll("{http.auth.user.id} {http.request.method} {http.request.uri}", ""); got != "alice GET /a?b" {
		t.Errorf("placeholders are %q", got)
	}
	if policy.RouteInfoOf(r).Backend != "web" {
		t.Error("the request is in no place")
	}
	rig.run(`
		> GET /a?b
		= hit | ETag: "2" | =b`)
}

type cacheLooking struct {
	caddyhttp.MiddlewareHandler
	look func(*http.Request)
}

func (l cacheLooking) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	l.look(r)
	return l.MiddlewareHandler.ServeHTTP(w, r, next)
}

// Cleanup cancels background requests.
func TestCacheCleanupEndsTheBackground(t *testing.T) {
	rig := cacheNewRig(t, new(Cache))
	rig.run(`
		< 200 | Cache-Control: max-age=60, stale-while-revalidate=60 | Age: 70 | =a
		> GET /`)
	begun, ended := make(chan struct{}), make(chan struct{})
	rig.expect(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(ended)
	})
	rig.ask("GET /")
	<-begun
	if err := rig.cache.Cleanup(); err != nil {
		t.Fatal(err)
	}
	<-ended
	// A later request is served without starting a validation.
	if got := rig.ask("GET /"); got.body != "a" {
		t.Errorf("got %q", got.body)
	}
	rig.cache = cacheStart(t, new(Cache))
}

// A panic in a background request does not crash the process.
func TestCacheBackgroundPanics(t *testing.T) {
	rig := cacheNewRig(t, new(Cache))
	rig.run(`
		< 200 | Cache-Control: max-age=60, stale-while-revalidate=600 | Age: 70 | =a
		> GET /`)
	var n atomic.Int32
	rig.proxy = cacheLooking{rig.proxy, func(*http.Request) {
		if n.Add(1) == 1 {
			panic("no")
		}
	}}
	rig.ask("GET /")
	rig.expect(cacheResponse([]string{"Cache-Control: max-age=60", "=b"}))
	testkit.Eventually(t, "it is tried again", func() bool { return rig.ask("GET /").body == "b" })
}
