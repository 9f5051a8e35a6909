package stats

import (
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func TestMetricsAreRenderedFromTheSketch(t *testing.T) {
	rec := NewRecorder("g")
	s := rec.Series("/a", "x")
	for _, took := range []time.Duration{time.Microsecond, 3 * time.Millisecond, 3 * time.Millisecond, 2 * time.Second, 20 * time.Minute} {
		s.Record(200, took)
	}
	s.Record(101, time.Hour)
	s.begin(0)
	s.begin(1)
	s.shard(0).flow(Traffic{1, 2, 3, 4e9})

	const want = `# HELP rgate_bandwidth_bytes_total Total bytes of bodies: ingress from clients, egress to clients.
# TYPE rgate_bandwidth_bytes_total counter
rgate_bandwidth_bytes_total{direction="egress",gateway="g",route="/a",service="x"} 2
rgate_bandwidth_bytes_total{direction="ingress",gateway="g",route="/a",service="x"} 1
# HELP rgate_bandwidth_header_bytes_total Total bytes of headers, estimated as in HTTP/1.1.
# TYPE rgate_bandwidth_header_bytes_total counter
rgate_bandwidth_header_bytes_total{direction="egress",gateway="g",route="/a",service="x"} 4e+09
rgate_bandwidth_header_bytes_total{direction="ingress",gateway="g",route="/a",service="x"} 3
# HELP rgate_request_duration_seconds Duration of requests including the response body, excluding protocol upgrades.
# TYPE rgate_request_duration_seconds histogram
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="0.001"} 1
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="0.0025"} 1
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="0.005"} 3
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="0.01"} 3
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="0.025"} 3
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="0.05"} 3
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="0.1"} 3
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="0.25"} 3
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="0.5"} 3
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="1"} 3
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="2.5"} 4
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="5"} 4
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="10"} 4
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="30"} 4
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="60"} 4
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="300"} 4
rgate_request_duration_seconds_bucket{backend="x",gateway="g",route="/a",le="+Inf"} 5
rgate_request_duration_seconds_sum{backend="x",gateway="g",route="/a"} 1202.006001
rgate_request_duration_seconds_count{backend="x",gateway="g",route="/a"} 5
# HELP rgate_requests_in_flight Number of requests in flight.
# TYPE rgate_requests_in_flight gauge
rgate_requests_in_flight{backend="x",gateway="g",route="/a"} 2
# HELP rgate_requests_total Total number of requests by status.
# TYPE rgate_requests_total counter
rgate_requests_total{backend="x",code="101",gateway="g",route="/a"} 1
rgate_requests_total{backend="x",code="200",gateway="g",route="/a"} 5
`
	if got := scrape(t, registered(t, rec)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestMetricsTakeAnyName checks that an invalid name does not fail the scrape.
func TestMetricsTakeAnyName(t *testing.T) {
	rec := NewRecorder("bad \xff name")
	rec.Series("bad \xff route", "").Record(200, time.Millisecond)
	const want = `rgate_requests_total{backend="",code="200",gateway="bad � name",route="bad � route"} 1`
	if got := scrape(t, registered(t, rec)); !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func registered(t *testing.T, rec *Recorder) *prometheus.Registry {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registerMetrics(registry, rec); err != nil {
		t.Fatal(err)
	}
	return registry
}

func scrape(t *testing.T, registry *prometheus.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("scraping: %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestBucketsAreCumulative(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	one := newCounts()
	exact := make(map[float64]uint64)
	for range 20_000 {
		took := time.Duration(rnd.ExpFloat64() * float64(200*time.Millisecond))
		one.add(200, took)
		for _, bound := range buckets {
			if took.Seconds() <= bound {
				exact[bound]++
			}
		}
	}
	for bound, n := range one.cumulative(buckets) {
		// Durations within 1% of a bound can be counted on either side of it.
		if diff := max(n, exact[bound]) - min(n, exact[bound]); float64(diff) > 0.02*float64(exact[bound])+20 {
			t.Errorf("up to %g s: %d, want about %d", bound, n, exact[bound])
		}
	}
}
