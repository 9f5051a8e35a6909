package fallback

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/policy"
)

func browserRequest(method string) *http.Request {
	r := httptest.NewRequest(method, "http://api.example.com/api/v2/orders/7?page=2", nil)
	for name, value := range map[string]string{
		"Accept": "application/json", "Accept-Encoding": "gzip, br", "Accept-Language": "en", "User-Agent": "Mozilla/5.0",
		"Referer": "https://example.com/", "Sec-Fetch-Mode": "cors", "X-Request-Id": "0123456789abcdef",
	} {
		r.Header.Set(name, value)
	}
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), httptest.NewRecorder(), new(caddyhttp.Server))
}

var benchBody = []byte("This is a small response of exactly 63 bytes from one backend.\n")

// BenchmarkFallbackUnused measures requests that need no fallback, by configured
// fallback.
func BenchmarkFallbackUnused(b *testing.B) {
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		_, err := w.Write(benchBody)
		return err
	})
	for name, f := range map[string]*Fallback{
		"backend":  {},
		"statuses": {Statuses: []string{"5xx"}, Response: new(Response)},
		"cached":   {Cached: caddy.Duration(time.Hour)},
	} {
		b.Run(name, func(b *testing.B) {
			fallbackPolicy(b, f)
			w := testkit.DiscardWriter{"Server": {"Caddy"}}
			r := browserRequest(http.MethodGet)
			caddyhttp.SetVar(r.Context(), policy.RequestStateVar, &fallbackExchange{place: policy.RouteInfo{Gateway: b.Name()}})
			b.ReportAllocs()
			for b.Loop() {
				_ = f.ServeHTTP(w, r, next)
			}
		})
	}
}
