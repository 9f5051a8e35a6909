package ratelimit

import (
	"math/rand/v2"
	"net/http"
	"testing"
	"unsafe"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// rateWriter is a response writer that reuses its header. Header clears it.
type rateWriter struct{ header http.Header }

func (w rateWriter) Header() http.Header         { clear(w.header); return w.header }
func (w rateWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w rateWriter) WriteHeader(int)             {}

func newRateWriter() rateWriter {
	return rateWriter{make(http.Header, 8)}
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
	// full returns a policy whose table contains the maximum number of keys.
	full := func(b *testing.B) *RateLimit {
		p := rateLoad[*RateLimit](b, rateContext(b), "rgate_rate_limit", options)
		send := newManySenders(p)
		for n := range defaultMaxKeys {
			send(n)
		}
		b.ReportAllocs()
		b.ResetTimer()
		return p
	}
	b.Run("million keys", func(b *testing.B) {
		p := full(b)
		n, send := 0, newManySenders(p)
		for b.Loop() {
			n = (n + 7919) % defaultMaxKeys
			send(n)
		}
		if got := p.local.keys.Load(); got != defaultMaxKeys {
			b.Errorf("there are %d keys", got)
		}
	})
	b.Run("million keys, parallel", func(b *testing.B) {
		p := full(b)
		b.RunParallel(func(pb *testing.PB) {
			n, send := rand.IntN(defaultMaxKeys), newManySenders(p)
			for pb.Next() {
				n = (n + 7919) % defaultMaxKeys
				send(n)
			}
		})
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

// newManySenders returns a function that sends requests from a million addresses through
// a policy.
func newManySenders(p *RateLimit) (send func(n int)) {
	w, r := newRateWriter(), rateRequest("203.0.113.7:1234")
	// The address is overwritten in place, so that it stays in the CPU cache.
	address := []byte("10.1xx.1xx.1xx")
	r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)[caddyhttp.ClientIPVarKey] = unsafe.String(&address[0], len(address))
	return func(n int) {
		copy(address[4:6], pairs[n/10_000*2:])
		copy(address[8:10], pairs[n/100%100*2:])
		copy(address[12:14], pairs[n%100*2:])
		_ = p.ServeHTTP(w, r, rateOK)
	}
}
