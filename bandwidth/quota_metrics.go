package bandwidth

import (
	"github.com/prometheus/client_golang/prometheus"
)

// quotaCollector exports the quotas of the process.
type quotaCollector struct{ used, limit *prometheus.Desc }

var quotaLabels = []string{"gateway", "level", "place", "quota", "period", "consumer", "direction"}

// quotaMetrics is registered in each configuration's registry.
var quotaMetrics = quotaCollector{
	used: prometheus.NewDesc("rgate_quota_used_bytes",
		"Bytes used in the current period of the quota.", quotaLabels, nil),
	limit: prometheus.NewDesc("rgate_quota_limit_bytes",
		"Maximum bytes in each period of the quota.", quotaLabels, nil),
}

// Describe implements prometheus.Collector.
func (c quotaCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.used
	ch <- c.limit
}

// Collect implements prometheus.Collector. It omits consumers that the configuration does
// not name, because their number is unbounded.
func (c quotaCollector) Collect(ch chan<- prometheus.Metric) {
	seen := make(map[[7]string]bool)
	evaluators.Range(func(_, value any) bool {
		e := value.(*quotaEvaluator)
		for _, s := range e.report() {
			labels := [7]string{e.gateway, s.Level, s.Service + s.Route + s.Group, s.Name, s.period, s.Consumer, s.Direction}
			if !s.named || seen[labels] {
				continue
			}
			seen[labels] = true
			ch <- prometheus.MustNewConstMetric(c.used, prometheus.GaugeValue, float64(s.Used), labels[:]...)
			ch <- prometheus.MustNewConstMetric(c.limit, prometheus.GaugeValue, float64(s.Allocated), labels[:]...)
		}
		return true
	})
}

// Interface guard
var _ prometheus.Collector = quotaCollector{}
