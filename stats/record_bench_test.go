package stats

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func BenchmarkServe(b *testing.B) {
	s := NewRecorder("bench").Series("/", "b")
	w := newDiscard()
	r := httptest.NewRequest("GET", "/", nil)
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(200)
		return nil
	})
	b.Run("serial", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = s.Serve(w, r, next)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_ = s.Serve(w, r, next)
			}
		})
	})
	b.Run("record", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Record(200, time.Millisecond)
		}
	})
	b.Run("clock", func(b *testing.B) {
		for b.Loop() {
			_ = s.rec.now()
		}
	})
}
