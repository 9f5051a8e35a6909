// Package stats keeps the figures of a gateway: how many requests succeeded and
// failed, how long they took, and how many bytes they moved, by route and backend.
//
// A [Recorder] is the pure core: each [Series] counts statuses and bytes and keeps a
// sketch of the latencies (DDSketch, 1 %) in about the time that it takes to read the
// clock twice. Everything else reads from it: the statistics page, Prometheus
// metrics, sinks, which are modules that get a [Snapshot] at every interval, and
// accounts of bandwidth, which take what is new by [Recorder.Drain].
//
// A handler gets all of this by a [Config]; what it counts outlives a reload of
// the configuration.
package stats

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/policy"
)

const (
	defaultInterval = time.Minute
	minInterval     = time.Second
)

// Config says where the statistics can be read, and where else they go.
type Config struct {
	// The path of the statistics page, which is compared with the whole path of a
	// request. Must begin with `/` and have no `*`, `?` or `#`. Default: `/stats`.
	Path string `json:"path,omitempty"`

	// The clients that may see the page: IP addresses, ranges, or `private_ranges`. A
	// request counts as from elsewhere if it has passed a proxy that is none of the
	// server's trusted proxies, or if its host is not configured. Default: all; on a
	// gateway, those that its own `ip_filter` lets in.
	Allow []string `json:"allow,omitempty"`

	// More names under which those clients may ask for the page. Default: those of the
	// site, the gateway and its routes, and the name of the machine.
	Hosts []string `json:"hosts,omitempty"`

	// Turns the page off. Figures are kept all the same. Default: false.
	Disabled bool `json:"disabled,omitempty"`

	// Where a snapshot of the figures is sent at every interval, and a last time
	// when the configuration is unloaded. The last 60 are kept in memory anyway.
	SinksRaw []json.RawMessage `json:"sinks,omitempty" caddy:"namespace=rgate.stats.sinks inline_key=sink"`

	// How often a snapshot is sent to the sinks, at least 1s. Default: 1m.
	Interval caddy.Duration `json:"interval,omitempty"`
}

// Validate reports what is wrong with the values, apart from the sinks. The error
// has a method Field, which returns the key of the value at fault.
func (c *Config) Validate() error {
	switch {
	case c.Path != "" && !strings.HasPrefix(c.Path, "/"):
		return &fieldError{"path", fmt.Sprintf("the path %q does not begin with a slash: write %q", c.Path, "/"+c.Path)}
	case strings.ContainsAny(c.Path, "*?#"):
		return &fieldError{"path", fmt.Sprintf("the path %q is not one path: leave out '*', '?' and '#'", c.Path)}
	case c.Interval != 0 && time.Duration(c.Interval) < minInterval:
		return &fieldError{"interval", fmt.Sprintf("the interval %s is too short: use at least %s", time.Duration(c.Interval), minInterval)}
	case len(c.Hosts) > 0 && len(c.Allow) == 0:
		return &fieldError{"hosts", "hosts requires allow: set allow or remove hosts"}
	}
	return c.guard().CheckGuard(DefaultPath)
}

// guard returns what decides who may see the page.
func (c *Config) guard() *policy.Guarded { return &policy.Guarded{Allow: c.Allow, Hosts: c.Hosts} }

// fieldError is something wrong with the value of a key.
type fieldError struct{ field, message string }

func (e *fieldError) Error() string { return e.message }

// Field returns the key of the value at fault.
func (e *fieldError) Field() string { return e.field }

// Start begins to record under a gateway's name, which must not change between
// reloads for the figures to outlive them. It is to be called when a module is
// provisioned; the handle's Close belongs into its Cleanup. If it fails, nothing
// is left behind.
func (c *Config) Start(ctx caddy.Context, name string) (*Handle, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	var guard *policy.Guarded
	if len(c.Allow) > 0 {
		guard = c.guard()
		if err := guard.Guard(ctx); err != nil {
			return nil, fmt.Errorf("restricting the statistics page: %w", err)
		}
	}
	outlets, err := c.loadSinks(ctx)
	if err != nil {
		return nil, err
	}
	rec, err := acquireRecorder(name)
	if err != nil {
		return nil, err
	}
	if err := registerMetrics(ctx.GetMetricsRegistry(), rec); err != nil {
		return nil, errors.Join(err, releaseRecorder(name))
	}

	h := &Handle{name: name, rec: rec, guard: guard, counted: counted{ctx.GetMetricsRegistry(), name}}
	h.counted.begin()
	if !c.Disabled {
		h.path = c.Path
		if h.path == "" {
			h.path = DefaultPath
		}
	}
	interval := time.Duration(c.Interval)
	if interval == 0 {
		interval = defaultInterval
	}
	h.reporter = startReporter(rec, outlets, interval, ctx.Logger())
	return h, nil
}

func (c *Config) loadSinks(ctx caddy.Context) ([]*outlet, error) {
	if len(c.SinksRaw) == 0 {
		return nil, nil
	}
	mods, err := ctx.LoadModule(c, "SinksRaw")
	if err != nil {
		return nil, fmt.Errorf("loading stats sinks: %w", err)
	}
	var outlets []*outlet
	for _, mod := range mods.([]any) {
		sink, ok := mod.(Sink)
		if !ok {
			return nil, fmt.Errorf("loading stats sinks: %T is not a sink; its module must implement stats.Sink", mod)
		}
		outlets = append(outlets, &outlet{name: string(mod.(caddy.Module).CaddyModule().ID), sink: sink})
	}
	return outlets, nil
}

// registerMetrics ignores that a recorder is registered already: several handlers
// of one configuration may share it.
func registerMetrics(registry *prometheus.Registry, rec *Recorder) error {
	if registry == nil {
		return nil
	}
	err := registry.Register(newCollector(rec))
	var registered prometheus.AlreadyRegisteredError
	if err != nil && !errors.As(err, &registered) {
		return fmt.Errorf("registering metrics of %q: %w", rec.name, err)
	}
	return nil
}

// recorders are kept by their gateway's name, so that a new configuration goes on
// with the figures of the old one.
var recorders = caddy.NewUsagePool()

func acquireRecorder(name string) (*Recorder, error) {
	rec, _, err := recorders.LoadOrNew(name, func() (caddy.Destructor, error) {
		return NewRecorder(name), nil
	})
	if err != nil {
		return nil, fmt.Errorf("making recorder %q: %w", name, err)
	}
	return rec.(*Recorder), nil
}

// HoldRecorder returns the recorder of a gateway's name, which is made if need be. It
// outlives reloads, and lasts as long as anybody holds it: release lets go of it, once
// however often it is called.
func HoldRecorder(name string) (rec *Recorder, release func() error, err error) {
	if rec, err = acquireRecorder(name); err != nil {
		return nil, nil, err
	}
	rec.consumers.wanted.Store(true)
	return rec, sync.OnceValue(func() error { return releaseRecorder(name) }), nil
}

func releaseRecorder(name string) error {
	_, err := recorders.Delete(name)
	return err
}
