package dockerupstreams

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// RegisterMetrics registers the metrics of all engines with the metrics registry of
// ctx. It may be called more than once per registry.
func RegisterMetrics(ctx caddy.Context) error {
	registry := ctx.GetMetricsRegistry()
	if registry == nil {
		return nil
	}
	err := registry.Register(collector{})
	if already := (prometheus.AlreadyRegisteredError{}); err != nil && !errors.As(err, &already) {
		return fmt.Errorf("registering the docker metrics: %w", err)
	}
	return nil
}

// collector collects the metrics of all watchers on each scrape, because watchers
// outlive registries. Series are labeled by endpoint.
type collector struct{}

func describe(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("rgate_docker_"+name, help, []string{"endpoint"}, nil)
}

var (
	descConnected  = describe("connected", "Whether the stream of events of the engine is connected.")
	descAge        = describe("last_sync_age_seconds", "Seconds since the containers of the engine were last in sync. Absent before the first sync.")
	descContainers = describe("containers", "Number of running containers, selected or not.")
	descTargets    = describe("targets", "Number of containers that receive requests, summed over all selectors.")
	descRejected   = describe("rejected_containers", "Number of containers with the labels of a selector that receive no requests, summed over all selectors.")
	descEvents     = describe("events_total", "Total events received from the engine.")
	descSyncs      = describe("syncs_total", "Total lists of all containers received from the engine.")
	descLists      = describe("partial_syncs_total", "Total lists of some containers received from the engine after events.")
	descReconnects = describe("reconnects_total", "Total connections to the engine that ended or failed.")

	descriptions = []*prometheus.Desc{
		descConnected, descAge, descContainers, descTargets, descRejected,
		descEvents, descSyncs, descLists, descReconnects,
	}
)

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descriptions {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (collector) Collect(ch chan<- prometheus.Metric) {
	seen := make(map[string]bool)
	for _, w := range followed() {
		// Watchers may differ only in their certificates: collect one of them.
		if name := w.addr.String(); !seen[name] {
			seen[name] = true
			w.collect(ch, name)
		}
	}
}

func (w *watcher) collect(ch chan<- prometheus.Metric, endpoint string) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64) {
		ch <- prometheus.MustNewConstMetric(d, kind, value, endpoint)
	}
	send(descEvents, prometheus.CounterValue, float64(w.events.Load()))
	send(descSyncs, prometheus.CounterValue, float64(w.syncs.Load()))
	send(descLists, prometheus.CounterValue, float64(w.lists.Load()))
	send(descReconnects, prometheus.CounterValue, float64(w.reconnects.Load()))

	w.mu.Lock()
	connected, lastSync, containers := 0.0, w.lastSync, len(w.table.running)
	if w.connected {
		connected = 1
	}
	targets, rejected := 0, 0
	for _, v := range w.views {
		set := v.set.Load()
		targets += len(set.Targets)
		rejected += len(set.Rejected)
	}
	w.mu.Unlock()

	send(descConnected, prometheus.GaugeValue, connected)
	send(descContainers, prometheus.GaugeValue, float64(containers))
	send(descTargets, prometheus.GaugeValue, float64(targets))
	send(descRejected, prometheus.GaugeValue, float64(rejected))
	if !lastSync.IsZero() {
		send(descAge, prometheus.GaugeValue, time.Since(lastSync).Seconds())
	}
}
