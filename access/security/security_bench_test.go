package security

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

func BenchmarkSecurity(b *testing.B) {
	p := testkit.Load[Security](b, `{}`)
	all := testkit.Load[Security](b, `{"hide_server": true, "max_header": "16KB", "content_security_policy": "default-src 'self'"}`)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for name := range testkit.BackendHeader() {
		r.Header.Set("X-"+name, "some value of usual length")
	}
	b.Run("none", func(b *testing.B) { testkit.Benchmark(b, r, nil) })
	b.Run("defaults", func(b *testing.B) { testkit.Benchmark(b, r, p.ServeHTTP) })
	b.Run("everything", func(b *testing.B) { testkit.Benchmark(b, r, all.ServeHTTP) })
}
