package cache

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/testkit"
)

func cacheBenchRequest(method string) *http.Request {
	r := httptest.NewRequest(method, "/api/orders?limit=10", nil)
	r.Header = http.Header{
		"Accept": {"application/json"}, "Accept-Encoding": {"gzip, deflate, br"}, "User-Agent": {"curl/8"}, "X-Forwarded-For": {"192.0.2.1"},
	}
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), httptest.NewRecorder(), new(caddyhttp.Server))
}

var cacheBenchBackend = caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Cache-Control"] = []string{"max-age=3600"}
	h["Etag"] = []string{`"1"`}
	h["Vary"] = []string{"Accept-Encoding"}
	h["Date"] = []string{"Mon, 02 Jan 2006 15:04:05 GMT"}
	delete(h, "Date")
	_, err := io.WriteString(w, cacheBenchBody)
	return err
})

var cacheBenchBody = strings.Repeat("x", 1000)

func cacheBench(b *testing.B, r *http.Request, p *Cache) {
	cacheStart(b, p)
	w := testkit.DiscardWriter{}
	if err := p.ServeHTTP(w, r, cacheBenchBackend); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		clear(w)
		if err := p.ServeHTTP(w, r, cacheBenchBackend); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCacheHit(b *testing.B) { cacheBench(b, cacheBenchRequest(http.MethodGet), new(Cache)) }

func BenchmarkCacheHitParallel(b *testing.B) {
	p := cacheStart(b, new(Cache))
	if err := p.ServeHTTP(testkit.DiscardWriter{}, cacheBenchRequest(http.MethodGet), cacheBenchBackend); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		w, r := testkit.DiscardWriter{}, cacheBenchRequest(http.MethodGet)
		for pb.Next() {
			clear(w)
			_ = p.ServeHTTP(w, r, cacheBenchBackend)
		}
	})
}

func BenchmarkCacheNotModified(b *testing.B) {
	r := cacheBenchRequest(http.MethodGet)
	r.Header.Set("If-None-Match", `"1"`)
	cacheBench(b, r, new(Cache))
}

func BenchmarkCacheMissAndStore(b *testing.B) {
	r := cacheBenchRequest(http.MethodGet)
	r.Header.Set("Cache-Control", "no-cache")
	cacheBench(b, r, new(Cache))
}

func BenchmarkCacheMissUnstorable(b *testing.B) {
	r := cacheBenchRequest(http.MethodGet)
	r.Header.Set("Authorization", "Bearer x")
	cacheBench(b, r, new(Cache))
}

func BenchmarkCachePost(b *testing.B) { cacheBench(b, cacheBenchRequest(http.MethodPost), new(Cache)) }

// BenchmarkCacheBackendAlone measures the backend handler without a cache.
func BenchmarkCacheBackendAlone(b *testing.B) {
	r, w := cacheBenchRequest(http.MethodGet), testkit.DiscardWriter{}
	b.ReportAllocs()
	for b.Loop() {
		clear(w)
		_ = cacheBenchBackend(w, r)
	}
}
