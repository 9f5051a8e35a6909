package operations

import (
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/metrics"
)

// collector exports metrics of the backends of all gateways in a configuration.
type collector struct {
	mu        sync.Mutex
	reporters []*Reporter // Guarded by mu.
}

var (
	backendUp = prometheus.NewDesc("rgate_backend_up",
		"Whether the backend has an available upstream.",
		[]string{"gateway", "backend"}, nil)
	backendUpstreams = prometheus.NewDesc("rgate_backend_upstreams",
		"Number of available upstreams of the backend.",
		[]string{"gateway", "backend"}, nil)
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- backendUp
	ch <- backendUpstreams
}

// Collect implements prometheus.Collector. If several gateways have the same name, only
// the first gateway's metrics of a backend are exported.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	type key struct{ gateway, backend string }
	seen := make(map[key]bool)
	for _, rep := range c.reporters {
		for _, b := range rep.Backends {
			if k := (key{rep.Gateway, b.Name}); seen[k] {
				continue
			} else {
				seen[k] = true
			}
			n := b.Service.Available()
			ch <- prometheus.MustNewConstMetric(backendUp, prometheus.GaugeValue, float64(min(n, 1)), rep.Gateway, b.Name)
			ch <- prometheus.MustNewConstMetric(backendUpstreams, prometheus.GaugeValue, float64(n), rep.Gateway, b.Name)
		}
	}
}

// registerMetrics adds the backends of a reporter to the metrics of the configuration.
func registerMetrics(ctx caddy.Context, rep *Reporter) error {
	c, err := metrics.RegisterShared(ctx, new(collector))
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reporters = append(c.reporters, rep)
	return nil
}
