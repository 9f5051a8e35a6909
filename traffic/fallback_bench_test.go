package traffic

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
)

// BenchmarkFallbackUnused is a request that needs no fallback, by what the policy is
// ready to do.
func BenchmarkFallbackUnused(b *testing.B) {
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		_, err := w.Write(coalesceAnswer)
		return err
	})
	for name, f := range map[string]*Fallback{
		"backend":  {},
		"statuses": {Statuses: []string{"5xx"}, Response: new(FallbackResponse)},
		"cached":   {Cached: caddy.Duration(time.Hour)},
	} {
		b.Run(name, func(b *testing.B) {
			fallbackPolicy(b, f)
			w := coalesceDiscard{http.Header{"Server": {"Caddy"}}}
			r := coalesceBrowser(http.MethodGet)
			caddyhttp.SetVar(r.Context(), policy.ExchangeVar, &fallbackExchange{place: policy.Place{Gateway: b.Name()}})
			b.ReportAllocs()
			for b.Loop() {
				_ = f.ServeHTTP(w, r, next)
			}
		})
	}
}
