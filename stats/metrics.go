package stats

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// buckets are the upper bounds of the latency histogram, in seconds. They can be changed
// without losing data, because the sketch is finer.
var buckets = []float64{
	.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300,
}

// collector exports the statistics of a recorder as metrics. It computes them on each
// scrape.
type collector struct {
	rec                          *Recorder
	requests, duration, inFlight *prometheus.Desc
	bodies, headers              *prometheus.Desc
}

func newCollector(rec *Recorder) *collector {
	gateway := prometheus.Labels{"gateway": rec.name}
	return &collector{
		rec: rec,
		requests: prometheus.NewDesc("rgate_requests_total",
			"Total number of requests by status.",
			[]string{"route", "backend", "code"}, gateway),
		duration: prometheus.NewDesc("rgate_request_duration_seconds",
			"Duration of requests including the response body, excluding protocol upgrades.",
			[]string{"route", "backend"}, gateway),
		inFlight: prometheus.NewDesc("rgate_requests_in_flight",
			"Number of requests in flight.",
			[]string{"route", "backend"}, gateway),
		bodies: prometheus.NewDesc("rgate_bandwidth_bytes_total",
			"Total bytes of bodies: ingress from clients, egress to clients.",
			[]string{"service", "route", "direction"}, gateway),
		headers: prometheus.NewDesc("rgate_bandwidth_header_bytes_total",
			"Total bytes of headers, estimated as in HTTP/1.1.",
			[]string{"service", "route", "direction"}, gateway),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.requests
	ch <- c.duration
	ch <- c.inFlight
	ch <- c.bodies
	ch <- c.headers
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.rec.each(func(s *Series) {
		t := s.read(AllTime)
		for _, code := range t.codes {
			ch <- prometheus.MustNewConstMetric(c.requests, prometheus.CounterValue,
				float64(code.n), s.route, s.backend, strconv.Itoa(code.code))
		}
		ch <- prometheus.MustNewConstHistogram(c.duration, uint64(t.sketch.TotalCount()),
			t.took.inSeconds(), t.cumulative(buckets), s.route, s.backend)
		ch <- prometheus.MustNewConstMetric(c.inFlight, prometheus.GaugeValue,
			float64(s.inFlight()), s.route, s.backend)
		bytes := func(desc *prometheus.Desc, n uint64, direction string) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), s.backend, s.route, direction)
		}
		bytes(c.bodies, t.traffic.IngressBody, "ingress")
		bytes(c.bodies, t.traffic.EgressBody, "egress")
		bytes(c.headers, t.traffic.IngressHeader, "ingress")
		bytes(c.headers, t.traffic.EgressHeader, "egress")
	})
}

// cumulative returns, for each bound, the number of durations up to the bound (within
// 1%). The bounds are in ascending order.
func (t *counts) cumulative(bounds []float64) map[float64]uint64 {
	counts := make(map[float64]uint64, len(bounds))
	var n float64
	i := 0
	t.sketch.ForEach(func(index int, count float64) (stop bool) {
		for value := indexes.Value(index); i < len(bounds) && value > bounds[i]; i++ {
			counts[bounds[i]] = uint64(n)
		}
		n += count
		return i == len(bounds)
	})
	for ; i < len(bounds); i++ {
		counts[bounds[i]] = uint64(n)
	}
	return counts
}

// Interface guard
var _ prometheus.Collector = (*collector)(nil)
