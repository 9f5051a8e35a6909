package access

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"unsafe"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// rateContext is a configuration that is in use until the test ends.
func rateContext(t testing.TB) caddy.Context {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	return ctx
}

// rateLoad sets up a policy from JSON, as Caddy does.
func rateLoad[T any](t testing.TB, ctx caddy.Context, name, options string) T {
	t.Helper()
	module, err := ctx.LoadModuleByID("http.handlers."+name, json.RawMessage(options))
	if err != nil {
		t.Fatal(err)
	}
	return module.(T)
}

// rateRequest is a request as it reaches a handler. headers are names and values in
// turn.
func rateRequest(remote string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "http://example.com/", nil)
	r.RemoteAddr = remote
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	repl := caddy.NewReplacer()
	repl.Map(func(name string) (any, bool) { // what the server adds
		if name == "http.request.remote.host" {
			return httptest.DefaultRemoteAddr, true
		}
		return nil, false
	})
	return caddyhttp.PrepareRequest(r, repl, httptest.NewRecorder(), new(caddyhttp.Server))
}

var rateOK = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })

// rateWriter is a response writer whose header is used over and over.
type rateWriter struct{ header http.Header }

func (w rateWriter) Header() http.Header         { return w.header }
func (w rateWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w rateWriter) WriteHeader(int)             {}

func newRateWriter() rateWriter {
	w := rateWriter{make(http.Header, 8)}
	w.header["Server"] = []string{"Caddy"}
	return w
}

func BenchmarkRateLimit(b *testing.B) {
	const options = `{"requests": 1000000000, "window": "1h"}`
	b.Run("hot key", func(b *testing.B) {
		p := rateLoad[*RateLimit](b, rateContext(b), "rgate_rate_limit", options)
		w, r := newRateWriter(), rateRequest("203.0.113.7:1234")
		b.ReportAllocs()
		for b.Loop() {
			_ = p.ServeHTTP(w, r, rateOK)
		}
	})
	b.Run("hot key, IPv6", func(b *testing.B) {
		p := rateLoad[*RateLimit](b, rateContext(b), "rgate_rate_limit", options)
		w, r := newRateWriter(), rateRequest("[2001:db8:1:2:3:4:5:6]:1234")
		b.ReportAllocs()
		for b.Loop() {
			_ = p.ServeHTTP(w, r, rateOK)
		}
	})
	b.Run("hot key, parallel", func(b *testing.B) {
		p := rateLoad[*RateLimit](b, rateContext(b), "rgate_rate_limit", options)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			w, r := newRateWriter(), rateRequest("203.0.113.7:1234")
			for pb.Next() {
				_ = p.ServeHTTP(w, r, rateOK)
			}
		})
	})
	b.Run("million keys", func(b *testing.B) {
		p := rateLoad[*RateLimit](b, rateContext(b), "rgate_rate_limit", options)
		w, r := newRateWriter(), rateRequest("203.0.113.7:1234")
		// The address is written over in its place: it is in the cache when it counts.
		address := []byte("10.000.000.000")
		r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)[caddyhttp.ClientIPVarKey] = unsafe.String(&address[0], len(address))
		write := func(n int) {
			for at := len(address) - 1; n > 0; at-- {
				if address[at] != '.' {
					address[at] = '0' + byte(n%10)
					n /= 10
				}
			}
		}
		for n := range defaultMaxKeys {
			write(n + defaultMaxKeys)
			_ = p.ServeHTTP(w, r, rateOK)
		}
		b.ReportAllocs()
		b.ResetTimer()
		n := 0
		for b.Loop() {
			n = (n + 7919) % defaultMaxKeys
			write(n + defaultMaxKeys)
			_ = p.ServeHTTP(w, r, rateOK)
		}
		if got := p.local.keys.Load(); got != defaultMaxKeys {
			b.Errorf("there are %d keys", got)
		}
	})
	b.Run("four limits", func(b *testing.B) {
		p := rateLoad[*RateLimit](b, rateContext(b), "rgate_rate_limit", `{"limits": [{"requests": 1000000000, "window": "1h"},
			{"requests": 1000000000, "window": "1m"}, {"requests": 1000000000, "window": "24h"}, {"requests": 1000000000, "window": "2h"}]}`)
		w, r := newRateWriter(), rateRequest("203.0.113.7:1234")
		b.ReportAllocs()
		for b.Loop() {
			_ = p.ServeHTTP(w, r, rateOK)
		}
	})
	b.Run("refused", func(b *testing.B) {
		p := rateLoad[*RateLimit](b, rateContext(b), "rgate_rate_limit", `{"requests": 1, "window": "24h"}`)
		w, r := newRateWriter(), rateRequest("203.0.113.7:1234")
		_ = p.ServeHTTP(w, r, rateOK)
		b.ReportAllocs()
		for b.Loop() {
			_ = p.ServeHTTP(w, r, rateOK)
		}
	})
}
