package cache

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/metrics"
)

// cacheCollector collects the metrics of all caches of the process.
type cacheCollector struct {
	requests, bytes, entries, evictions *prometheus.Desc
}

func newCacheCollector() *cacheCollector {
	gateway := []string{"gateway"}
	return &cacheCollector{
		requests: prometheus.NewDesc("rgate_cache_requests_total",
			"Total requests handled by the cache, by result.", []string{"gateway", "route", "result"}, nil),
		bytes: prometheus.NewDesc("rgate_cache_bytes",
			"Bytes of memory used by stored responses.", gateway, nil),
		entries: prometheus.NewDesc("rgate_cache_entries",
			"Number of stored responses.", gateway, nil),
		evictions: prometheus.NewDesc("rgate_cache_evictions_total",
			"Total evictions of stored responses.", gateway, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *cacheCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.requests, c.bytes, c.entries, c.evictions} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *cacheCollector) Collect(ch chan<- prometheus.Metric) {
	for _, store := range allCacheStores() {
		store.counts.Range(func(route, counts any) bool {
			for result, name := range cacheResultNames {
				ch <- prometheus.MustNewConstMetric(c.requests, prometheus.CounterValue,
					float64(counts.(*cacheCounts).results[result].Load()), store.gateway, route.(string), name)
			}
			return true
		})
		stats := store.Stats()
		ch <- prometheus.MustNewConstMetric(c.bytes, prometheus.GaugeValue, float64(stats.Bytes), store.gateway)
		ch <- prometheus.MustNewConstMetric(c.entries, prometheus.GaugeValue, float64(stats.Entries), store.gateway)
		ch <- prometheus.MustNewConstMetric(c.evictions, prometheus.CounterValue, float64(stats.Evicted), store.gateway)
	}
}

// registerCacheMetrics registers the metrics once per configuration.
func registerCacheMetrics(ctx caddy.Context) error {
	return metrics.Register(ctx, newCacheCollector())
}

// Interface guard
var _ prometheus.Collector = (*cacheCollector)(nil)
