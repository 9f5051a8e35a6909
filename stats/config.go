// Package stats records a gateway's requests by route and backend: successes and
// failures, latencies, and bytes.
//
// A [Recorder] is the pure core: each [Series] counts statuses and bytes and keeps a
// sketch of the latencies (DDSketch, 1 %) in about the time that it takes to read the
// clock twice. Everything else reads from it: the statistics page, Prometheus
// metrics, sinks, which are modules that get a [Snapshot] at every interval, and
// bandwidth accounting, which drains it by [Recorder.Drain].
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

// Config configures the statistics page and the sinks.
type Config struct {
	// The path of the statistics page, which is compared with the whole path of a
	// request. Must begin with `/` and have no `*`, `?` or `#`. Default: `/stats`.
	Path string `json:"path,omitempty"`

	// The clients that may see the page: IP addresses, ranges, or `private_ranges`.
	// Requests that passed an untrusted proxy, or whose host is not configured, are
	// refused. Default: all clients; on a gateway, those that its `ip_filter` allows.
	Allow []string `json:"allow,omitempty"`

	// Additional hosts under which those clients may request the page. Default: the
	// hosts of the site, the gateway and its routes, and the name of the machine.
	Hosts []string `json:"hosts,omitempty"`

	// Turns the page off. Statistics are still recorded. Default: false.
	Disabled bool `json:"disabled,omitempty"`

	// The sinks that get a snapshot at every interval, and a last one when the
	// configuration is unloaded. The last 60 snapshots are also kept in memory.
	SinksRaw []json.RawMessage `json:"sinks,omitempty" caddy:"namespace=rgate.stats.sinks inline_key=sink"`

	// How often a snapshot is sent to the sinks, at least 1s. Default: 1m.
	Interval caddy.Duration `json:"interval,omitempty"`
}

// Validate checks the values, apart from the sinks. The error has a method Field,
// which returns the key of the invalid value.
func (c *Config) Validate() error {
	switch {
	case c.Path != "" && !strings.HasPrefix(c.Path, "/"):
		return &fieldError{"path", fmt.Sprintf("invalid path %q: must begin with a slash: use %q", c.Path, "/"+c.Path)}
	case strings.ContainsAny(c.Path, "*?#"):
		return &fieldError{"path", fmt.Sprintf("invalid path %q: must not contain '*', '?' or '#'", c.Path)}
	case c.Interval != 0 && time.Duration(c.Interval) < minInterval:
		return &fieldError{"interval", fmt.Sprintf("invalid interval %s: must be at least %s", time.Duration(c.Interval), minInterval)}
	case len(c.Hosts) > 0 && len(c.Allow) == 0:
		return &fieldError{"hosts", "hosts requires allow: set allow or remove hosts"}
	}
	return c.guard().CheckAccess(DefaultPath)
}

// guard returns the access check of the page.
func (c *Config) guard() *policy.ProtectedEndpoint {
	return &policy.ProtectedEndpoint{Allow: c.Allow, Hosts: c.Hosts}
}

// fieldError is an error in the value of a key.
type fieldError struct{ field, message string }

func (e *fieldError) Error() string { return e.message }

// Field returns the key of the invalid value.
func (e *fieldError) Field() string { return e.field }

// Start starts recording under a gateway's name, which must stay the same for the
// statistics to survive a reload. It is called by a module's Provision; its Cleanup
// must close the handle. If Start fails, nothing has to be closed.
func (c *Config) Start(ctx caddy.Context, name string) (*Handle, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	var guard *policy.ProtectedEndpoint
	if len(c.Allow) > 0 {
		guard = c.guard()
		if err := guard.ProvisionAccess(ctx); err != nil {
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
			return nil, fmt.Errorf("loading stats sinks: %T is not a sink: it must implement stats.Sink", mod)
		}
		outlets = append(outlets, &outlet{name: string(mod.(caddy.Module).CaddyModule().ID), sink: sink})
	}
	return outlets, nil
}

// registerMetrics registers a recorder's metrics, unless they are registered already:
// several handlers of one configuration may share a recorder.
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

// recorders holds recorders by their gateway's name, so that a new configuration
// continues with the statistics of the old one.
var recorders = caddy.NewUsagePool()

func acquireRecorder(name string) (*Recorder, error) {
	rec, _, err := recorders.LoadOrNew(name, func() (caddy.Destructor, error) {
		return NewRecorder(name), nil
	})
	if err != nil {
		return nil, fmt.Errorf("creating recorder %q: %w", name, err)
	}
	return rec.(*Recorder), nil
}

// HoldRecorder returns the recorder of a gateway, which is created if needed. It
// survives reloads until every holder has called release. Further calls of release
// do nothing.
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
