package ratelimit

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/metrics"
)

// rateCollector collects the metrics of all rate limits and throttles in the process.
type rateCollector struct {
	keys, evicted                  *prometheus.Desc
	redisUp, redisErrors, fallback *prometheus.Desc
	waiting, delayed               *prometheus.Desc
}

func newRateCollector() *rateCollector {
	redis := []string{"redis"}
	return &rateCollector{
		keys: prometheus.NewDesc("rgate_rate_limit_keys",
			"Number of keys that rate limits keep in memory, counted once per limit.", nil, nil),
		evicted: prometheus.NewDesc("rgate_rate_limit_evicted_keys_total",
			"Total number of keys evicted because the table was full.", nil, nil),
		redisUp: prometheus.NewDesc("rgate_rate_limit_redis_up",
			"Whether requests are counted in Redis (1) or, while Redis is unavailable, in each gateway (0).", redis, nil),
		redisErrors: prometheus.NewDesc("rgate_rate_limit_redis_errors_total",
			"Total number of requests for which Redis failed or timed out.", redis, nil),
		fallback: prometheus.NewDesc("rgate_rate_limit_redis_fallbacks_total",
			"Total number of requests that were counted without Redis because it was unavailable.", redis, nil),
		waiting: prometheus.NewDesc("rgate_throttle_waiting_requests",
			"Number of requests waiting in throttle queues.", nil, nil),
		delayed: prometheus.NewDesc("rgate_throttle_delayed_requests_total",
			"Total number of requests delayed by throttles.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *rateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.keys, c.evicted, c.redisUp, c.redisErrors, c.fallback, c.waiting, c.delayed} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *rateCollector) Collect(ch chan<- prometheus.Metric) {
	var keys, evicted, waiting, delayed float64
	tables.Range(func(_, value any) bool {
		l := value.(*limiter)
		keys += float64(l.keys.Load())
		evicted += float64(l.evicted.Load())
		return true
	})
	throttles.Range(func(_, value any) bool {
		l := value.(*queues)
		waiting += float64(l.waiting.Load())
		delayed += float64(l.delayed.Load())
		return true
	})
	ch <- prometheus.MustNewConstMetric(c.keys, prometheus.GaugeValue, keys)
	ch <- prometheus.MustNewConstMetric(c.evicted, prometheus.CounterValue, evicted)
	ch <- prometheus.MustNewConstMetric(c.waiting, prometheus.GaugeValue, waiting)
	ch <- prometheus.MustNewConstMetric(c.delayed, prometheus.CounterValue, delayed)
	c.collectRedis(ch)
}

func (c *rateCollector) collectRedis(ch chan<- prometheus.Metric) {
	type sum struct{ up, errors, local float64 }
	servers := make(map[string]*sum) // several URLs can refer to one server
	redises.Range(func(_, value any) bool {
		r := value.(*redisCounter)
		s := servers[r.server]
		if s == nil {
			s = &sum{up: 1}
			servers[r.server] = s
		}
		if r.away.Load() {
			s.up = 0
		}
		s.errors += float64(r.errors.Load())
		s.local += float64(r.local.Load())
		return true
	})
	for server, s := range servers {
		ch <- prometheus.MustNewConstMetric(c.redisUp, prometheus.GaugeValue, s.up, server)
		ch <- prometheus.MustNewConstMetric(c.redisErrors, prometheus.CounterValue, s.errors, server)
		ch <- prometheus.MustNewConstMetric(c.fallback, prometheus.CounterValue, s.local, server)
	}
}

// registerRateMetrics registers the collector with the metrics registry of a
// configuration, once.
func registerRateMetrics(ctx caddy.Context) error {
	return metrics.Register(ctx, newRateCollector())
}

// Interface guard
var _ prometheus.Collector = (*rateCollector)(nil)
