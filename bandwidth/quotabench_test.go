package bandwidth

import (
	"fmt"
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/bandwidth/storetest"
)

// BenchmarkEvaluate reads minute rows of 59 minutes, hour rows of 20 hours and day rows
// of 19 days.
func BenchmarkEvaluate(b *testing.B) {
	for _, c := range []struct {
		what              string
		quotas, consumers int
	}{{"100 backends", 100, 0}, {"1000 consumers", 1, 1000}} {
		b.Run(c.what, func(b *testing.B) {
			clock := storetest.ClockAt(b, "2026-11-20T20:59:30Z")
			rec := new(storetest.Recorder)
			usage := newQuotaStore(b, storetest.SQLite(b), "test", rec, clock)
			e := newEvaluator("rgate")
			e.now, e.usageStore = clock.Now, func() *store.Store { return usage }
			rows := make(map[store.Key]store.Bytes)
			for i := range max(c.quotas, c.consumers) {
				key, quota := store.Key{Service: fmt.Sprint("s", i), Route: "/"}, &Quota{Egress: 1 << 50}
				if c.consumers > 0 {
					key, quota.Per = store.Key{Service: "s0", Route: "/", Consumer: fmt.Sprint("c", i)}, perConsumer
				}
				rows[key] = store.Bytes{Egress: 1}
				if i < c.quotas {
					if _, _, err := e.join(specOf(b, "backend", fmt.Sprint("s", i), quota), nil); err != nil {
						b.Fatal(err)
					}
				}
			}
			now := clock.Now()
			for _, step := range []struct {
				of time.Duration
				n  int
			}{{24 * time.Hour, 19}, {time.Hour, 20}, {time.Minute, 59}} {
				for i := range step.n {
					clock.Set(now.Add(-time.Duration(i) * step.of))
					for key, n := range rows {
						rec.Add(intervalOf(key, n))
					}
					usage.Collect()
				}
			}
			clock.Set(now)
			if err := usage.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			for b.Loop() {
				if err := e.evaluate(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			e.attach(nil)
		})
	}
}
