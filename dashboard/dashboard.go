// Package dashboard serves a page with statistics and charts of a gateway: requests,
// traffic, backends and quotas.
//
// The page is rendered on the server for each request. It works without JavaScript and
// loads no external resources.
package dashboard

import (
	"cmp"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

func init() {
	caddy.RegisterModule(new(Dashboard))
	httpcaddyfile.RegisterDirective("rgate_dashboard", policy.EndpointDirective[Dashboard])
}

// Dashboard serves a page for operators of a gateway. It shows requests per second,
// errors, latency, bandwidth by service, quotas, backends, the slowest routes and the
// last errors. Time ranges are from 5 minutes to 30 days. History requires `bandwidth`.
// Without it, the page only shows the current state.
type Dashboard struct {
	policy.Base

	// The path of the page, and the clients that may access it. Default path:
	// `/dashboard`.
	policy.ProtectedEndpoint

	// The name of the gateway to show. Default: the gateway that contains the page, or
	// `rgate_stats` outside of a gateway.
	Gateway string `json:"gateway,omitempty"`

	// The time zone of the page, such as `Europe/Berlin`. Default: `UTC`.
	Timezone string `json:"timezone,omitempty"`

	// The refresh interval of the page, at least 1s. Default: 15s.
	Refresh caddy.Duration `json:"refresh,omitempty" default:"15s"`

	zone    *time.Location
	log     requestLog
	account func() account // may return nil
	clock   func() time.Time
	cache   usageCache
	release []func() error
}

const (
	defaultPath    = "/dashboard"
	defaultRefresh = caddy.Duration(15 * time.Second)
	shortest       = caddy.Duration(time.Second)
)

// CaddyModule returns the Caddy module information.
func (*Dashboard) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_dashboard",
		New: func() caddy.Module { return new(Dashboard) },
	}
}

// Check validates the options and returns the first error.
func (d *Dashboard) Check() error {
	if err := d.CheckAccess(defaultPath); err != nil {
		return err
	}
	if _, err := time.LoadLocation(d.Timezone); err != nil {
		return options.Errorf("timezone", "unknown time zone %q: use a name such as Europe/Berlin, or UTC", d.Timezone)
	}
	if d.Refresh != 0 && d.Refresh < shortest {
		return options.Errorf("refresh", "invalid refresh %s: must be at least 1s, such as 15s", time.Duration(d.Refresh))
	}
	return nil
}

// Validate implements caddy.Validator.
func (d *Dashboard) Validate() error { return d.Check() }

// DefaultPath returns the default path of the dashboard.
func (*Dashboard) DefaultPath() string { return defaultPath }

// Provision resolves the gateway, its request log and its usage store.
func (d *Dashboard) Provision(ctx caddy.Context) (err error) {
	if err := d.Start(ctx, "dashboard"); err != nil {
		return err
	}
	if d.Path == "" {
		d.Path = defaultPath
	}
	if d.Refresh == 0 {
		d.Refresh = defaultRefresh
	}
	d.clock = time.Now
	d.account = func() account {
		if ledger := store.For(d.Gateway); ledger != nil {
			return ledger
		}
		return nil
	}
	d.Gateway = cmp.Or(d.Gateway, policy.ScopeOf(ctx).Gateway, stats.DefaultName)
	if d.zone, err = time.LoadLocation(d.Timezone); err != nil {
		return d.Check()
	}
	if d.Off() {
		return nil
	}
	recorder, release, err := stats.HoldRecorder(d.Gateway)
	if err != nil {
		return err
	}
	log, releaseLog := recorder.HoldLog()
	d.log, d.release = log, []func() error{func() error { releaseLog(); return nil }, release}
	return d.ProvisionAccess(ctx)
}

// Cleanup releases the recorder and its request log.
func (d *Dashboard) Cleanup() (err error) {
	for _, release := range d.release {
		if failed := release(); err == nil {
			err = failed
		}
	}
	d.release = nil
	return err
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Dashboard)(nil)
	_ caddy.Validator             = (*Dashboard)(nil)
	_ caddy.CleanerUpper          = (*Dashboard)(nil)
	_ caddyhttp.MiddlewareHandler = (*Dashboard)(nil)
	_ policy.Endpoint             = (*Dashboard)(nil)
)
