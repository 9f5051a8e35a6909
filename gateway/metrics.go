package gateway

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
	gateways []*Gateway // Guarded by mu.
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
	for _, g := range c.gateways {
		for _, b := range g.Backends {
			if k := (key{g.Name, b.Name}); seen[k] {
				continue
			} else {
				seen[k] = true
			}
			n := b.service.Available()
			metrics <- prometheus.MustNewConstMetric(backendUp, prometheus.GaugeValue, float64(min(n, 1)), g.Name, b.Name)
			metrics <- prometheus.MustNewConstMetric(backendUpstreams, prometheus.GaugeValue, float64(n), g.Name, b.Name)
		}
	}
}

// registerMetrics exports the gateway's backends on the configuration's registry.
func registerMetrics(ctx caddy.Context, g *Gateway) error {
	c, err := metrics.RegisterShared(ctx, new(collector))
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gateways = append(c.gateways, g)
	return nil
}
