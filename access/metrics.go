package access

import (
	"errors"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// rateCollector renders what limits count as metrics when they are scraped. All of it
// belongs to the process, so that reloads lose nothing.
type rateCollector struct {
	keys, evicted                  *prometheus.Desc
	redisUp, redisErrors, fallback *prometheus.Desc
}

func newRateCollector() *rateCollector {
	redis := []string{"redis"}
	return &rateCollector{
		keys: prometheus.NewDesc("rgate_rate_limit_keys",
			"Keys that rate limits remember in the process.", nil, nil),
		evicted: prometheus.NewDesc("rgate_rate_limit_evicted_keys_total",
			"Keys that were forgotten before their time because there were too many.", nil, nil),
		redisUp: prometheus.NewDesc("rgate_rate_limit_redis_up",
			"Whether requests are counted in Redis (1), or in each gateway alone because it does not answer (0).", redis, nil),
		redisErrors: prometheus.NewDesc("rgate_rate_limit_redis_errors_total",
			"Requests for which Redis failed or did not answer in time.", redis, nil),
		fallback: prometheus.NewDesc("rgate_rate_limit_redis_fallbacks_total",
			"Requests that a gateway has decided about alone because Redis failed or was away.", redis, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *rateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.keys, c.evicted, c.redisUp, c.redisErrors, c.fallback} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *rateCollector) Collect(ch chan<- prometheus.Metric) {
	var keys, evicted float64
	tables.Range(func(_, value any) bool {
		l := value.(*limiter)
		keys += float64(l.keys.Load())
		evicted += float64(l.driven.Load())
		return true
	})
	ch <- prometheus.MustNewConstMetric(c.keys, prometheus.GaugeValue, keys)
	ch <- prometheus.MustNewConstMetric(c.evicted, prometheus.CounterValue, evicted)
	// Several URLs may lead to one server.
	servers := make(map[string]*[3]float64)
	redises.Range(func(_, value any) bool {
		r := value.(*redisCounter)
		sum := servers[r.server]
		if sum == nil {
			sum = &[3]float64{1}
			servers[r.server] = sum
		}
		if r.away.Load() {
			sum[0] = 0
		}
		sum[1] += float64(r.errors.Load())
		sum[2] += float64(r.local.Load())
		return true
	})
	for server, sum := range servers {
		ch <- prometheus.MustNewConstMetric(c.redisUp, prometheus.GaugeValue, sum[0], server)
		ch <- prometheus.MustNewConstMetric(c.redisErrors, prometheus.CounterValue, sum[1], server)
		ch <- prometheus.MustNewConstMetric(c.fallback, prometheus.CounterValue, sum[2], server)
	}
}

// registerRateMetrics adds the metrics to those of a configuration, once.
func registerRateMetrics(ctx caddy.Context) error {
	registry := ctx.GetMetricsRegistry()
	if registry == nil {
		return nil
	}
	err := registry.Register(newRateCollector())
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		return nil
	}
	return err
}

// Interface guard
var _ prometheus.Collector = (*rateCollector)(nil)
