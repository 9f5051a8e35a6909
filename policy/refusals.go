package policy

import (
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/metrics"
)

// refusal is the key of the counters of refused requests. Its values come from the
// configuration, which limits their number.
type refusal struct {
	policy, route string
	status        int
}

// refusals counts for the whole process, across reloads.
var refusals metrics.Counters[refusal]

// RefusalCount returns how many requests a policy has refused, on all routes of the
// process or on one. The route of requests outside of a gateway is empty.
func RefusalCount(policy string, route ...string) (n uint64) {
	refusals.Each(func(what refusal, count uint64) {
		if what.policy == policy && (len(route) == 0 || route[0] == what.route) {
			n += count
		}
	})
	return n
}

// RefusalsByPolicy returns how many requests each policy has refused.
func RefusalsByPolicy() map[string]uint64 {
	all := make(map[string]uint64)
	refusals.Each(func(what refusal, n uint64) { all[what.policy] += n })
	return all
}

// collector exports the refusals as a metric.
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

// registerRefusals registers the metric of the refusals of all policies.
func registerRefusals(ctx caddy.Context) error {
	return metrics.Register(ctx, collector{prometheus.NewDesc("rgate_refused_requests_total",
		"Total requests refused by a policy.", []string{"policy", "route", "code"}, nil)})
}

// Interface guard
var _ prometheus.Collector = collector{}
