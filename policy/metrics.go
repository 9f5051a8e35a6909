package policy

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// refusal is what refused requests are counted by. All of it comes from the
// configuration, so there are never many.
type refusal struct {
	policy, route string
	status        int
}

// refusals counts for the whole process, so that reloads lose nothing.
var refusals counters

// counters are counters by what was refused.
type counters struct {
	all sync.Map // of *atomic.Uint64, by refusal
}

func (c *counters) count(what refusal) {
	n, ok := c.all.Load(what)
	if !ok {
		n, _ = c.all.LoadOrStore(what, new(atomic.Uint64))
	}
	n.(*atomic.Uint64).Add(1)
}

func (c *counters) each(f func(what refusal, n uint64)) {
	c.all.Range(func(key, n any) bool {
		f(key.(refusal), n.(*atomic.Uint64).Load())
		return true
	})
}

// collector renders the refusals as a metric.
type collector struct{ refused *prometheus.Desc }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { ch <- c.refused }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	refusals.each(func(what refusal, n uint64) {
		ch <- prometheus.MustNewConstMetric(c.refused, prometheus.CounterValue,
			float64(n), what.policy, what.route, strconv.Itoa(what.status))
	})
}

// RegisterMetrics adds a collector to the metrics of a configuration. Of equal ones,
// which several policies of it may bring, the first is enough.
func RegisterMetrics(ctx caddy.Context, collector prometheus.Collector) error {
	registry := ctx.GetMetricsRegistry()
	if registry == nil {
		return nil
	}
	err := registry.Register(collector)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		return nil
	}
	return err
}

// registerRefusals adds the metric of what all policies have turned away.
func registerRefusals(ctx caddy.Context) error {
	return RegisterMetrics(ctx, collector{prometheus.NewDesc("rgate_refused_requests_total",
		"Requests that a policy has turned away.", []string{"policy", "route", "code"}, nil)})
}

// Interface guard
var _ prometheus.Collector = collector{}
