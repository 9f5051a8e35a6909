// Package stats records statistics of a gateway's requests by route and backend: status
// codes, latencies and bytes.
//
// A [Recorder] collects the statistics. Each [Series] counts status codes and bytes, and
// keeps a sketch of the latencies (DDSketch, 1%). Recording takes about as long as
// reading the clock twice. A recorder is read by the statistics page, Prometheus metrics,
// bandwidth accounting with [Recorder.Drain], and sinks. Sinks are modules that receive a
// [Snapshot] at every interval.
//
// A handler provides all of this by embedding a [Config]. The statistics survive
// configuration reloads.
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

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
)

const (
	defaultInterval = time.Minute
	minInterval     = time.Second
)

// Config configures the statistics page and the sinks.
type Config struct {
	// The path of the statistics page, which must equal the whole path of a request. It
	// must begin with `/` and must not contain `*`, `?` or `#`. Default: `/stats`.
	Path string `json:"path,omitempty"`

	// The clients that can access the page: IP addresses, CIDR ranges, or
	// `private_ranges`. Requests through an untrusted proxy, or for an unknown host, are
	// rejected. Default: all clients or, on a gateway, the clients that its `ip_filter`
	// allows.
	Allow []string `json:"allow,omitempty"`

	// Additional host names under which the page is served to those clients. Requires
	// `allow`. Default: none. The host names of the site, the gateway and its routes, and
	// the machine are always accepted.
	Hosts []string `json:"hosts,omitempty"`

	// Whether the page is disabled. Statistics are still recorded. Default: false.
	Disabled bool `json:"disabled,omitempty"`

	// The sinks that receive a snapshot at every interval and when the configuration is
	// unloaded. The last 60 snapshots are also kept in memory. Default: none.
	SinksRaw []json.RawMessage `json:"sinks,omitempty" caddy:"namespace=rgate.stats.sinks inline_key=sink"`

	// The interval between snapshots for sinks. Minimum: 1s. Default: 1m.
	Interval caddy.Duration `json:"interval,omitempty"`
}

// Validate validates the options except the sinks. The error has a method Field, which
// returns the path of the invalid option.
func (c *Config) Validate() error {
	switch {
	case c.Path != "" && !strings.HasPrefix(c.Path, "/"):
		return options.Errorf("path", "invalid path %q: must begin with a slash: use %q", c.Path, "/"+c.Path)
	case strings.ContainsAny(c.Path, "*?#"):
		return options.Errorf("path", "invalid path %q: must not contain '*', '?' or '#'", c.Path)
	case c.Interval != 0 && time.Duration(c.Interval) < minInterval:
		return options.Errorf("interval", "invalid interval %s: must be at least %s", time.Duration(c.Interval), minInterval)
	case len(c.Hosts) > 0 && len(c.Allow) == 0:
		return options.Errorf("hosts", "hosts requires allow: set allow or remove hosts")
	}
	return c.guard().CheckAccess(DefaultPath)
}

// guard returns the access control of the page.
func (c *Config) guard() *policy.ProtectedEndpoint {
	return &policy.ProtectedEndpoint{Allow: c.Allow, Hosts: c.Hosts}
}

// Start starts recording under the name of a gateway. Statistics survive a reload if the
// name stays the same. A module calls Start in Provision and closes the handle in
// Cleanup. If Start fails, there is no handle to close.
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

// registerMetrics registers the metrics of a recorder once. Several handlers of one
// configuration can share a recorder.
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

// recorders holds recorders by gateway name, so that statistics survive a reload.
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

// HoldRecorder returns the recorder of a gateway and creates it if needed. The recorder
// survives reloads until every holder has called release. Further calls of release have
// no effect.
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
