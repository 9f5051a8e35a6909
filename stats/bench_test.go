package stats

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/testkit"
)

// latencies are random durations with a lognormal distribution around 5 ms.
var latencies = func() (l [1 << 12]time.Duration) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range l {
		l[i] = time.Duration(5e6 * math.Exp(rnd.NormFloat64()))
	}
	return l
}()

// both runs f in one goroutine, and then in one goroutine per processor.
func both(b *testing.B, name string, f func(worker uint32, i int)) {
	b.Run(name+"/serial", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			f(0, i)
		}
	})
	b.Run(name+"/parallel", func(b *testing.B) {
		b.ReportAllocs()
		var workers atomic.Uint32
		b.RunParallel(func(pb *testing.PB) {
			worker := workers.Add(1)
			for i := 0; pb.Next(); i++ {
				f(worker, i)
			}
		})
	})
}

// typical returns a request with eight header fields, and a handler whose response has
// six header fields and a short body, like a proxied response.
func typical() (http.ResponseWriter, *http.Request, caddyhttp.Handler) {
	r := httptest.NewRequest("GET", "/api/payment/123?verbose=1", nil)
	for _, field := range []string{"User-Agent", "Accept", "Accept-Encoding", "Accept-Language", "Authorization",
		"Cookie", "X-Request-Id", "Referer"} {
		r.Header.Set(field, "some value of middling length")
	}
	w := testkit.DiscardWriter{}
	for _, field := range []string{"Content-Type", "Content-Length", "Date", "Server", "Via", "X-Request-Id"} {
		w.Header().Set(field, "some value of middling length")
	}
	body := make([]byte, 61)
	return w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(200)
		_, err := w.Write(body)
		return err
	})
}

// BenchmarkServe measures the recording of one request around a handler that does
// nothing, with and without byte counts. For comparison, it measures two clock readings,
// and Caddy's response recorder with a Prometheus histogram.
func BenchmarkServe(b *testing.B) {
	rec := NewRecorder("bench")
	s := rec.Series("/", "b")
	w, r, next := typical()
	both(b, "series", func(uint32, int) { _ = s.Serve(w, r, next, nil) })
	both(b, "two_clock_readings", func(uint32, int) {
		start := rec.now()
		_ = rec.now() - start
	})

	both(b, "of_which_metering", func(worker uint32, i int) {
		ww := writer{series: s, status: 200, written: 61, sampled: sampled(int64(i))}
		ww.ResponseWriter, ww.shard = w, s.shard(worker)
		ww.meter(r)
		if traffic := ww.remaining(200, true); traffic.EgressBody != 61 {
			b.Fatal(traffic)
		}
	})

	histogram := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "h", Buckets: buckets},
		[]string{"route", "backend", "code"})
	both(b, "stock_recorder_and_histogram", func(uint32, int) {
		start := time.Now()
		recorder := caddyhttp.NewResponseRecorder(w, nil, nil)
		_ = next.ServeHTTP(recorder, r)
		histogram.WithLabelValues("/", "b", strconv.Itoa(recorder.Status())).Observe(time.Since(start).Seconds())
	})
}

// BenchmarkRecord measures only the recording of given times.
func BenchmarkRecord(b *testing.B) {
	rec := NewRecorder("bench")
	s := rec.Series("/", "b")
	both(b, "sharded_sketch", func(worker uint32, i int) {
		s.begin(worker)
		s.end(worker, time.Second, 200, latencies[i%len(latencies)], Traffic{})
	})

	var mu sync.Mutex
	one := newCounts()
	both(b, "one_sketch_and_mutex", func(_ uint32, i int) {
		mu.Lock()
		one.add(200, latencies[i%len(latencies)])
		mu.Unlock()
	})

	classic := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "c", Buckets: buckets})
	both(b, "classic_histogram", func(_ uint32, i int) { classic.Observe(latencies[i%len(latencies)].Seconds()) })

	native := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "n", NativeHistogramBucketFactor: 1.02})
	both(b, "native_histogram", func(_ uint32, i int) { native.Observe(latencies[i%len(latencies)].Seconds()) })
}

// BenchmarkReport measures a report, and the memory of a series that was busy for an
// hour.
func BenchmarkReport(b *testing.B) {
	const routes = 100
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	rec := NewRecorder("bench")
	for route := range routes {
		s := rec.Series(fmt.Sprint("/", route), "b")
		for at := time.Duration(0); at <= time.Hour; at += tick {
			for i := range 100 {
				s.begin(uint32(i))
				s.end(uint32(i), at, 200, latencies[(i*31+route)%len(latencies)], Traffic{})
			}
		}
	}
	rec.began = rec.began.Add(-time.Hour)
	runtime.GC()
	runtime.ReadMemStats(&after)

	for name, query := range map[string]Query{
		"all_time": {}, "1m": {Window: LastMinute}, "1h_by_route": {Window: LastHour, ByRoute: true},
	} {
		b.Run(fmt.Sprintf("%s/%d_series", name, routes), func(b *testing.B) {
			for b.Loop() {
				if rec.Report(query).Requests.Success == 0 {
					b.Fatal("nothing was recorded")
				}
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/routes, "B/series")
		})
	}
}
