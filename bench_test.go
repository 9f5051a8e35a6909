package rgate_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strconv"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	_ "github.com/rgate/rgate"
	"github.com/rgate/rgate/policy"
)

// benchResponse is a handler that replaces a backend's proxy and responds immediately.
type benchResponse struct {
	// Whether to watch for the end of the request context, like a transport.
	Watches bool `json:"watches,omitempty"`
}

func (*benchResponse) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.bench_response", New: func() caddy.Module { return new(benchResponse) }}
}

var benchBody = []byte("This is a small response of exactly 61 bytes from a backend.\n")

func (a *benchResponse) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if a.Watches {
		_, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
	}
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(benchBody)
	return err
}

// benchWriter is a response writer that discards the response.
type benchWriter struct{ header http.Header }

func (w benchWriter) Header() http.Header         { return w.header }
func (w benchWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w benchWriter) WriteHeader(int)             {}

// BenchmarkSurvival measures the cost of the request log and of the policies that
// protect a backend, for a successful request. The cost is the difference to "nothing",
// which only routes and records statistics. In rows that end in "watched", the handler
// also watches the request context, like a transport.
func BenchmarkSurvival(b *testing.B) {
	caddy.RegisterModule(new(benchResponse))
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as in the stand-alone binary
	const (
		coalesce    = `{"handler": "rgate_coalesce"}`
		concurrency = `{"handler": "rgate_concurrency", "max": 100, "queue": 200, "queue_timeout": "1s"}`
		breaker     = `{"handler": "rgate_circuit_breaker"}`
		log         = `"operations": {"path": "/gateway"}`
	)
	const all = coalesce + "," + concurrency + "," + breaker + ","
	for _, c := range []struct {
		name, around, options string
		watched               bool
	}{
		{"nothing", "", "", false},
		{"circuit_breaker", breaker + ",", "", false},
		{"concurrency", concurrency + ",", "", false},
		{"coalesce", coalesce + ",", "", false},
		{"request_log", "", log + ",", false},
		{"all", all, log + ",", false},
		{"nothing_watched", "", "", true},
		{"all_watched", all, log + ",", true},
	} {
		b.Run(c.name, func(b *testing.B) {
			base, err := caddy.ProvisionContext(new(caddy.Config))
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := caddy.NewContext(base)
			defer cancel()
			module, err := ctx.LoadModuleByID("http.handlers.rgate", json.RawMessage(`{"name": "`+b.Name()+`", `+c.options+`
				"routes": [{"path_prefix": "/api", "backend": "web"}],
				"backends": [{"name": "web", "dial": ["127.0.0.1:1"], "around": [`+c.around+`
					{"handler": "bench_response", "watches": `+strconv.FormatBool(c.watched)+`}]}]}`))
			if err != nil {
				b.Fatal(err)
			}
			gateway := module.(caddyhttp.MiddlewareHandler)
			w, r := benchWriter{http.Header{"Server": {"Caddy"}}}, httptest.NewRequest(http.MethodGet, "http://api.example.com/api/v2/orders/7?page=2", nil)
			for name, value := range map[string]string{
				"Accept": "application/json", "Accept-Encoding": "gzip, br", "Accept-Language": "en", "User-Agent": "Mozilla/5.0",
				"Referer": "https://example.com/", "Sec-Fetch-Mode": "cors", "X-Request-Id": "0123456789abcdef",
			} {
				r.Header.Set(name, value)
			}
			ctxOf := caddyhttp.PrepareRequest(r, caddy.NewReplacer(), httptest.NewRecorder(), new(caddyhttp.Server)).Context()
			vars := ctxOf.Value(caddyhttp.VarsCtxKey).(map[string]any)
			b.ReportAllocs()
			for b.Loop() {
				// As in a server, each request has a new replacer.
				ctx := context.WithValue(ctxOf, caddy.ReplacerCtxKey, caddy.NewEmptyReplacer())
				end := func() {}
				if c.watched {
					ctx, end = context.WithCancel(ctx)
				}
				delete(vars, policy.RequestStateVar)
				if err := gateway.ServeHTTP(w, r.WithContext(ctx), nil); err != nil {
					b.Fatal(err)
				}
				end()
			}
		})
	}
}
