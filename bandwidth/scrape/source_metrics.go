package scrape

import (
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/metrics"
)

// sourceCollector exports the status of a configuration's sources.
type sourceCollector struct {
	mu       sync.Mutex
	scrapers []*Scraper // Guarded by mu.
}

var (
	sourceUpDesc = prometheus.NewDesc("rgate_bandwidth_source_up",
		"Whether the last scrape of another gateway's metrics succeeded.", []string{"gateway", "source"}, nil)
	sourceScrapedDesc = prometheus.NewDesc("rgate_bandwidth_source_scraped_timestamp_seconds",
		"Time of the last successful scrape of another gateway's metrics.", []string{"gateway", "source"}, nil)
)

// Describe implements prometheus.Collector.
func (c *sourceCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- sourceUpDesc
	ch <- sourceScrapedDesc
}

// Collect implements prometheus.Collector. It omits rgate_bandwidth_source_up before the
// first scrape, and while another gateway scrapes the source.
func (c *sourceCollector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	type name struct{ gateway, source string }
	seen := make(map[name]bool)
	for _, s := range c.scrapers {
		now, id := s.Status(), name{s.gateway, s.Name}
		if seen[id] {
			continue
		}
		seen[id] = true
		if now.Status == StatusUp || now.Status == StatusDown {
			up := 0.0
			if now.Status == StatusUp {
				up = 1
			}
			ch <- prometheus.MustNewConstMetric(sourceUpDesc, prometheus.GaugeValue, up, s.gateway, s.Name)
		}
		if now.LastScrape != nil {
			ch <- prometheus.MustNewConstMetric(sourceScrapedDesc, prometheus.GaugeValue, float64(now.LastScrape.UnixMilli())/1000, s.gateway, s.Name)
		}
	}
}

// RegisterMetrics registers the metrics of sources in a configuration's registry.
func RegisterMetrics(ctx caddy.Context, scrapers []*Scraper) error {
	if len(scrapers) == 0 {
		return nil
	}
	c, err := metrics.RegisterShared(ctx, new(sourceCollector))
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scrapers = append(c.scrapers, scrapers...)
	return nil
}

// Interface guard
var _ prometheus.Collector = (*sourceCollector)(nil)
