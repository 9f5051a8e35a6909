package bandwidth

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/metrics"
)

// quotaCollector renders the quotas of the process as metrics.
type quotaCollector struct{ used, limit, notifications *prometheus.Desc }

var quotaLabels = []string{"gateway", "level", "place", "quota", "period", "consumer", "direction"}

// quotaMetrics is the collector of every configuration.
var quotaMetrics = quotaCollector{
	used: prometheus.NewDesc("rgate_quota_used_bytes",
		"How much of a quota has been used in the current period.", quotaLabels, nil),
	limit: prometheus.NewDesc("rgate_quota_limit_bytes",
		"How much a quota allocates to a period.", quotaLabels, nil),
	notifications: prometheus.NewDesc("rgate_quota_notifications_total",
		"Attempts of this gateway to deliver a message about a quota, by how they ended.",
		[]string{"gateway", "channel", "state"}, nil),
}

// Describe implements prometheus.Collector.
func (c quotaCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.used
	ch <- c.limit
	ch <- c.notifications
}

// Collect implements prometheus.Collector. Consumers that the configuration does not
// name are left out: there may be any number of them.
func (c quotaCollector) Collect(ch chan<- prometheus.Metric) {
	seen := make(map[[7]string]bool)
	evaluators.Range(func(_, value any) bool {
		a := value.(*quotaEvaluator)
		for _, s := range a.report() {
			labels := [7]string{a.gateway, s.Level, s.Service + s.Route + s.Group, s.Name, s.period, s.Consumer, s.Direction}
			if !s.named || seen[labels] {
				continue
			}
			seen[labels] = true
			ch <- prometheus.MustNewConstMetric(c.used, prometheus.GaugeValue, float64(s.Used), labels[:]...)
			ch <- prometheus.MustNewConstMetric(c.limit, prometheus.GaugeValue, float64(s.Allocated), labels[:]...)
		}
		return true
	})
	notifications.Each(func(what notification, n uint64) {
		ch <- prometheus.MustNewConstMetric(c.notifications, prometheus.CounterValue, float64(n), what.gateway, what.channel, what.state)
	})
}

// notification is what attempts to deliver a message are counted by.
type notification struct{ gateway, channel, state string }

// notificationRetried is the state of an attempt that has failed for the time being;
// the others are those of deliveries.
const notificationRetried = "retried"

// notifications counts for the whole process, so that reloads lose nothing.
var notifications metrics.Counters[notification]

// Interface guard
var _ prometheus.Collector = quotaCollector{}
