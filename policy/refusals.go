package policy

import (
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/metrics"
)

// refusal is the key of the counters of rejected requests. The configuration limits the
// number of keys.
type refusal struct {
	policy, route string
	status        int
}

// refusals counts rejected requests for the whole process, across reloads.
var refusals metrics.Counters[refusal]

// RefusalCount returns the number of requests that a policy has rejected, on all routes
// of the process or on a given route. The route is empty outside of a gateway.
func RefusalCount(policy string, route ...string) (n uint64) {
	refusals.Each(func(what refusal, count uint64) {
		if what.policy == policy && (len(route) == 0 || route[0] == what.route) {
			n += count
		}
	})
	return n
}

// RefusalsByPolicy returns the number of rejected requests of each policy.
func RefusalsByPolicy() map[string]uint64 {
	all := make(map[string]uint64)
	refusals.Each(func(what refusal, n uint64) { all[what.policy] += n })
	return all
}

// collector exports the number of rejected requests as a metric.
type collector struct{ refused *prometheus.Desc }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { ch <- c.refused }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	refusals.Each(func(what refusal, n uint64) {
		ch <- prometheus.MustNewConstMetric(c.refused, prometheus.CounterValue,
			float64(n), what.policy, what.route, strconv.Itoa(what.status))
	})
}

// registerRefusals registers the metric of rejected requests, for all policies.
func registerRefusals(ctx caddy.Context) error {
	return metrics.Register(ctx, collector{prometheus.NewDesc("rgate_refused_requests_total",
		"Total number of requests rejected by a policy.", []string{"policy", "route", "code"}, nil)})
}

// Interface guard
var _ prometheus.Collector = collector{}
