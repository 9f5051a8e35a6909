package concurrency

import "github.com/prometheus/client_golang/prometheus"

var (
	concurrencyInFlight = prometheus.NewDesc("rgate_concurrency_in_flight",
		"Number of requests in flight.", []string{"gateway", "backend"}, nil)
	concurrencyQueued = prometheus.NewDesc("rgate_concurrency_queued",
		"Number of requests waiting in the queue.", []string{"gateway", "backend"}, nil)
	concurrencyRejected = prometheus.NewDesc("rgate_concurrency_rejected_total",
		"Total requests rejected because the queue was full or the timeout elapsed.",
		[]string{"gateway", "backend", "reason"}, nil)
)

// concurrencyCollector collects the state of all limiters of the process.
type concurrencyCollector struct{}

// Describe implements prometheus.Collector.
func (concurrencyCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- concurrencyInFlight
	ch <- concurrencyQueued
	ch <- concurrencyRejected
}

// Collect implements prometheus.Collector.
func (concurrencyCollector) Collect(ch chan<- prometheus.Metric) {
	type labels struct{ gateway, backend string }
	all := make(map[labels]counts)
	sharedLimiters.Range(func(_, value any) bool {
		l := value.(*sharedLimiter)
		at, more := labels{l.gateway, l.label()}, l.counts()
		sum := all[at]
		sum.inFlight += more.inFlight
		sum.queued += more.queued
		sum.full += more.full
		sum.timedOut += more.timedOut
		all[at] = sum
		return true
	})
	for at, sum := range all {
		ch <- prometheus.MustNewConstMetric(concurrencyInFlight, prometheus.GaugeValue, float64(sum.inFlight), at.gateway, at.backend)
		ch <- prometheus.MustNewConstMetric(concurrencyQueued, prometheus.GaugeValue, float64(sum.queued), at.gateway, at.backend)
		ch <- prometheus.MustNewConstMetric(concurrencyRejected, prometheus.CounterValue, float64(sum.full), at.gateway, at.backend, "full")
		ch <- prometheus.MustNewConstMetric(concurrencyRejected, prometheus.CounterValue, float64(sum.timedOut), at.gateway, at.backend, "timeout")
	}
}

// Interface guard
var _ prometheus.Collector = concurrencyCollector{}
