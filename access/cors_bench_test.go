package access

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/uuid"
	rscors "github.com/rs/cors"
)

// benchResponse is what a response of a backend sets in its header.
var benchResponse = http.Header{
	"Content-Type": {"application/json"}, "Content-Length": {"61"}, "Date": {"Wed, 21 Oct 2015 07:28:00 GMT"},
	"Server": {"nginx"}, "Etag": {`"1"`}, "Cache-Control": {"no-store"}, "Via": {"1.1 Caddy"},
}

// benchWriter is a response writer that keeps nothing.
type benchWriter struct{ header http.Header }

func (w *benchWriter) Header() http.Header         { return w.header }
func (w *benchWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *benchWriter) WriteHeader(int)             {}

// benchPolicy measures a policy with a handler behind it that answers at once, and
// what that takes alone if the policy is benchNone.
func benchPolicy(b *testing.B, r *http.Request, serve func(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error) {
	w := &benchWriter{benchResponse.Clone()}
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.Header()["Vary"] = nil // of the request before
		w.WriteHeader(http.StatusOK)
		return nil
	})
	b.ReportAllocs()
	for b.Loop() {
		if err := serve(w, r, next); err != nil {
			b.Fatal(err)
		}
	}
}

func benchNone(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(w, r)
}

// What CORS adds to a request: the difference to `none`.
func BenchmarkCORS(b *testing.B) {
	p := editingLoad[CORS](b, `{"allowed_origins": ["https://app.example.com", "https://*.example.org"]}`)
	open := editingLoad[CORS](b, `{"allowed_origins": ["*"]}`)
	other := rscors.New(rscors.Options{AllowedOrigins: p.AllowedOrigins})
	with := func(origin string) *http.Request {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		return r
	}
	b.Run("none", func(b *testing.B) { benchPolicy(b, with(""), benchNone) })
	b.Run("no_origin", func(b *testing.B) { benchPolicy(b, with(""), p.ServeHTTP) })
	b.Run("no_origin_any", func(b *testing.B) { benchPolicy(b, with(""), open.ServeHTTP) })
	b.Run("no_origin_rs_cors_which_removes_nothing", func(b *testing.B) {
		benchPolicy(b, with(""), func(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
			other.HandlerFunc(w, r)
			return next.ServeHTTP(w, r)
		})
	})
	b.Run("exact", func(b *testing.B) { benchPolicy(b, with("https://app.example.com"), p.ServeHTTP) })
	b.Run("wildcard", func(b *testing.B) { benchPolicy(b, with("https://a.example.org"), p.ServeHTTP) })
	b.Run("not_allowed", func(b *testing.B) { benchPolicy(b, with("https://evil.example"), p.ServeHTTP) })
	b.Run("preflight", func(b *testing.B) {
		r := with("https://app.example.com")
		r.Method = http.MethodOptions
		r.Header.Set("Access-Control-Request-Method", "PUT")
		benchPolicy(b, r, p.ServeHTTP)
	})
}

// What an ID costs, and what the policy around it does.
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
	p := editingLoad[RequestID](b, `{}`)
	r := editingRequest(httptest.NewRequest(http.MethodGet, "/", nil), nil)
	trace := editingRequest(httptest.NewRequest(http.MethodGet, "/", nil), nil)
	trace.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	b.Run("none", func(b *testing.B) { benchPolicy(b, r, benchNone) })
	fresh := func(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
		caddyhttp.SetVar(r.Context(), requestIDVar, nil)
		return p.ServeHTTP(w, r, next)
	}
	b.Run("policy", func(b *testing.B) { benchPolicy(b, r, fresh) })
	b.Run("policy_with_trace", func(b *testing.B) { benchPolicy(b, trace, fresh) })
}

func BenchmarkSecurity(b *testing.B) {
	p := editingLoad[Security](b, `{}`)
	all := editingLoad[Security](b, `{"hide_server": true, "max_header": "16KB", "content_security_policy": "default-src 'self'"}`)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for name := range benchResponse {
		r.Header.Set("X-"+name, "some value of usual length")
	}
	b.Run("none", func(b *testing.B) { benchPolicy(b, r, benchNone) })
	b.Run("defaults", func(b *testing.B) { benchPolicy(b, r, p.ServeHTTP) })
	b.Run("everything", func(b *testing.B) { benchPolicy(b, r, all.ServeHTTP) })
}
