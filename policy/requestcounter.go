package policy

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/metrics"
)

// RequestCounter counts requests by gateway, route and backend, and optionally by kind.
// It counts for the whole process, across reloads, and exports the counts as metrics.
type RequestCounter struct {
	desc   *prometheus.Desc
	byKind bool
	counts metrics.Counters[countedRequest]
}

// countedRequest is the key of the counters. The configuration limits the number of
// keys.
type countedRequest struct {
	at   RouteInfo
	kind string
}

// NewRequestCounter returns a counter with the name and HELP of its metric. kindLabel,
// if not empty, is the label for the kind of a request.
func NewRequestCounter(metric, help, kindLabel string) *RequestCounter {
	labels := []string{"gateway", "route", "backend"}
	if kindLabel != "" {
		labels = append(labels, kindLabel)
	}
	return &RequestCounter{desc: prometheus.NewDesc(metric, help, labels, nil), byKind: kindLabel != ""}
}

// Count counts a request. kind is empty if the counter has no kinds.
func (c *RequestCounter) Count(r *http.Request, kind string) {
	what := countedRequest{RouteInfoOf(r), kind}
	c.counts.Count(what)
}

// Register adds the metric to the configuration's metrics, once.
func (c *RequestCounter) Register(ctx caddy.Context) error { return metrics.Register(ctx, c) }

// Describe implements prometheus.Collector.
func (c *RequestCounter) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c *RequestCounter) Collect(ch chan<- prometheus.Metric) {
	c.counts.Each(func(what countedRequest, n uint64) {
		labels := []string{what.at.Gateway, what.at.Route, what.at.Backend}
		if c.byKind {
			labels = append(labels, what.kind)
		}
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(n), labels...)
	})
}

// Interface guard
var _ prometheus.Collector = (*RequestCounter)(nil)
