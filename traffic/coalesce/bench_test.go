package coalesce

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/testkit"
)

func coalesceBrowser(method string) *http.Request {
	r := httptest.NewRequest(method, "http://api.example.com/api/v2/orders/7?page=2", nil)
	for name, value := range map[string]string{
		"Accept": "application/json", "Accept-Encoding": "gzip, br", "Accept-Language": "en", "User-Agent": "Mozilla/5.0",
		"Referer": "https://example.com/", "Sec-Fetch-Mode": "cors", "X-Request-Id": "0123456789abcdef",
	} {
		r.Header.Set(name, value)
	}
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), httptest.NewRecorder(), new(caddyhttp.Server))
}

var coalesceBody61 = []byte("This is a small result of exactly 61 bytes from one backend.\n")

// BenchmarkCoalesceAlone measures a request that is not shared, with and without the
// policy.
func BenchmarkCoalesceAlone(b *testing.B) {
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		_, err := w.Write(coalesceBody61)
		return err
	})
	for _, with := range []string{"without", "with", "off"} {
		b.Run(with, func(b *testing.B) {
			c := coalescePolicy(b, new(Coalesce))
			c.Disabled = with == "off"
			w := testkit.DiscardWriter{"Server": {"Caddy"}}
			r := coalesceBrowser(http.MethodGet)
			b.ReportAllocs()
			for b.Loop() {
				if with == "without" {
					_ = next.ServeHTTP(w, r)
				} else {
					_ = c.ServeHTTP(w, r, next)
				}
			}
		})
	}
}

// BenchmarkCoalesceParallel measures many different concurrent requests.
func BenchmarkCoalesceParallel(b *testing.B) {
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		_, err := w.Write(coalesceBody61)
		return err
	})
	c := coalescePolicy(b, new(Coalesce))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		w := testkit.DiscardWriter{"Server": {"Caddy"}}
		r := coalesceBrowser(http.MethodGet)
		for pb.Next() {
			_ = c.ServeHTTP(w, r, next)
		}
	})
}
