// Package metrics counts events for the whole process. It registers collectors once per
// configuration.
package metrics

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// Counters counts events by key. The number of keys must be limited. The zero value is
// ready to use. It is safe for concurrent use.
type Counters[K comparable] struct {
	all sync.Map // K to *atomic.Uint64
}

// Count counts one event.
func (c *Counters[K]) Count(key K) {
	n, known := c.all.Load(key)
	if !known {
		n, _ = c.all.LoadOrStore(key, new(atomic.Uint64))
	}
	n.(*atomic.Uint64).Add(1)
}

// Each calls f for each key, in no particular order.
func (c *Counters[K]) Each(f func(key K, n uint64)) {
	c.all.Range(func(key, n any) bool {
		f(key.(K), n.(*atomic.Uint64).Load())
		return true
	})
}

// Register adds a collector to the metrics of a configuration. If an equal collector is
// registered, it does nothing.
func Register(ctx caddy.Context, collector prometheus.Collector) error {
	_, err := RegisterShared(ctx, collector)
	return err
}

// RegisterShared is like Register, but for a collector that several modules share. It
// returns the registered collector.
func RegisterShared[C prometheus.Collector](ctx caddy.Context, collector C) (C, error) {
	registry := ctx.GetMetricsRegistry()
	if registry == nil {
		return collector, nil
	}
	err := registry.Register(collector)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		return already.ExistingCollector.(C), nil
	}
	return collector, err
}
