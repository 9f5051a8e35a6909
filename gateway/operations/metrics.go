package operations

import (
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/metrics"
)

// collector exports how the backends of a configuration's gateways are, at the
// moment of a scrape.
type collector struct {
	mu       sync.Mutex
	gateways []*Reporter // Guarded by mu.
}

var (
	backendUp = prometheus.NewDesc("rgate_backend_up",
		"Whether the backend has an upstream that can take requests (1) or none (0).",
		[]string{"gateway", "backend"}, nil)
	backendUpstreams = prometheus.NewDesc("rgate_backend_upstreams",
		"The number of the backend's upstreams that can take requests.",
		[]string{"gateway", "backend"}, nil)
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	descs <- backendUp
	descs <- backendUpstreams
}

// Collect implements prometheus.Collector. Of two gateways with one name, the
// first to name a backend speaks for it.
func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	type key struct{ gateway, backend string }
	seen := make(map[key]bool)
	for _, rep := range c.gateways {
		for _, b := range rep.Backends {
			if k := (key{rep.Gateway, b.Name}); seen[k] {
				continue
			} else {
				seen[k] = true
			}
			n := b.Upstreams.Available()
			metrics <- prometheus.MustNewConstMetric(backendUp, prometheus.GaugeValue, float64(min(n, 1)), rep.Gateway, b.Name)
			metrics <- prometheus.MustNewConstMetric(backendUpstreams, prometheus.GaugeValue, float64(n), rep.Gateway, b.Name)
		}
	}
}

// registerMetrics exports the gateway's backends on the configuration's registry.
func registerMetrics(ctx caddy.Context, rep *Reporter) error {
	c, err := metrics.RegisterShared(ctx, new(collector))
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gateways = append(c.gateways, rep)
	return nil
}
