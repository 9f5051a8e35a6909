package cors

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	rscors "github.com/rs/cors"

	"github.com/rgate/rgate/internal/testkit"
)

// BenchmarkCORS measures a request with and without CORS.
func BenchmarkCORS(b *testing.B) {
	p := testkit.Load[CORS](b, `{"allowed_origins": ["https://app.example.com", "https://*.example.org"]}`)
	open := testkit.Load[CORS](b, `{"allowed_origins": ["*"]}`)
	other := rscors.New(rscors.Options{AllowedOrigins: p.AllowedOrigins})
	with := func(origin string) *http.Request {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		return r
	}
	b.Run("none", func(b *testing.B) { testkit.Benchmark(b, with(""), nil) })
	b.Run("no_origin", func(b *testing.B) { testkit.Benchmark(b, with(""), p.ServeHTTP) })
	b.Run("no_origin_any", func(b *testing.B) { testkit.Benchmark(b, with(""), open.ServeHTTP) })
	b.Run("no_origin_rs_cors_which_removes_nothing", func(b *testing.B) {
		testkit.Benchmark(b, with(""), func(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
			other.HandlerFunc(w, r)
			return next.ServeHTTP(w, r)
		})
	})
	b.Run("exact", func(b *testing.B) { testkit.Benchmark(b, with("https://app.example.com"), p.ServeHTTP) })
	b.Run("wildcard", func(b *testing.B) { testkit.Benchmark(b, with("https://a.example.org"), p.ServeHTTP) })
	b.Run("not_allowed", func(b *testing.B) { testkit.Benchmark(b, with("https://evil.example"), p.ServeHTTP) })
	b.Run("preflight", func(b *testing.B) {
		r := with("https://app.example.com")
		r.Method = http.MethodOptions
		r.Header.Set("Access-Control-Request-Method", "PUT")
		testkit.Benchmark(b, r, p.ServeHTTP)
	})
}
