package notify

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/metrics"
)

// attempt is how attempts to deliver a message are counted.
type attempt struct{ gateway, channel, state string }

// stateRetried is the state of an attempt that failed and will be repeated. The others are
// those of deliveries.
const stateRetried = "retried"

// attempts counts for the whole process, so that reloads lose nothing.
var attempts metrics.Counters[attempt]

// Metrics is the collector of all notifiers of the process.
var Metrics prometheus.Collector = collector{prometheus.NewDesc("rgate_quota_notifications_total",
	"Total attempts of this gateway to deliver a message about a quota, by outcome.",
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
