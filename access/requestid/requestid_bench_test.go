package requestid

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/uuid"

	"github.com/rgate/rgate/internal/testkit"
)

// BenchmarkRequestID measures the creation of an ID, and the whole policy.
func BenchmarkRequestID(b *testing.B) {
	now := time.Now()
	b.Run("make", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			newRequestID(now)
		}
	})
	b.Run("make_google_uuid", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			id, _ := uuid.NewV7()
			_ = id.String()
		}
	})
	p := testkit.Load[RequestID](b, `{}`)
	r := testkit.Prepare(httptest.NewRequest(http.MethodGet, "/", nil), nil)
	trace := testkit.Prepare(httptest.NewRequest(http.MethodGet, "/", nil), nil)
	trace.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	b.Run("none", func(b *testing.B) { testkit.Benchmark(b, r, nil) })
	fresh := func(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
		caddyhttp.SetVar(r.Context(), requestIDVar, nil)
		return p.ServeHTTP(w, r, next)
	}
	b.Run("policy", func(b *testing.B) { testkit.Benchmark(b, r, fresh) })
	b.Run("policy_with_trace", func(b *testing.B) { testkit.Benchmark(b, trace, fresh) })
}
