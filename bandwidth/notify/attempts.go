package notify

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/metrics"
)

// attempt holds the labels of the attempt counter.
type attempt struct{ gateway, channel, state string }

// stateRetried is the state label of an attempt that failed and will be retried. The
// other values are delivery states.
const stateRetried = "retried"

// attempts counts delivery attempts for the whole process, so that the counts survive
// reloads.
var attempts metrics.Counters[attempt]

// Metrics is the collector for all notifiers of the process.
var Metrics prometheus.Collector = collector{prometheus.NewDesc("rgate_quota_notifications_total",
	"Total attempts to deliver a quota notification, by outcome.",
	[]string{"gateway", "channel", "state"}, nil)}

type collector struct{ attempts *prometheus.Desc }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { ch <- c.attempts }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	attempts.Each(func(a attempt, n uint64) {
		ch <- prometheus.MustNewConstMetric(c.attempts, prometheus.CounterValue, float64(n), a.gateway, a.channel, a.state)
	})
}
