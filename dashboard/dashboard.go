// Package dashboard serves a page with the figures and charts of a gateway: its
// requests, traffic, backends and quotas.
//
// The page is rendered on the server for each request. It works without scripts, and
// loads nothing from elsewhere.
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

// Dashboard is a page for operators of a gateway: requests per second, errors,
// latency, bandwidth of each service, quotas, backends, the slowest routes and the last
// errors, for ranges from five minutes to thirty days. History requires `bandwidth`;
// without it, the page shows the current state.
type Dashboard struct {
	policy.Base

	// The path of the page, `/dashboard` by default, and who may see it.
	policy.ProtectedEndpoint

	// The gateway that the page shows. Default: the surrounding gateway, or
	// `rgate_stats` outside of one.
	Gateway string `json:"gateway,omitempty"`

	// The time zone of times on the page, such as `Europe/Berlin`. Default: `UTC`.
	Timezone string `json:"timezone,omitempty"`

	// The interval at which the page refreshes itself, at least 1s. Default: 15s.
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

// Check returns the first error in the options.
func (d *Dashboard) Check() error {
	if err := d.CheckAccess(defaultPath); err != nil {
		return err
	}
	if _, err := time.LoadLocation(d.Timezone); err != nil {
		return options.Errorf("timezone", "unknown time zone %q: use one such as Europe/Berlin, or UTC", d.Timezone)
	}
	if d.Refresh != 0 && d.Refresh < shortest {
		return options.Errorf("refresh", "invalid interval %s: must be at least 1s, such as 15s", time.Duration(d.Refresh))
	}
	return nil
}

// Validate implements caddy.Validator.
func (d *Dashboard) Validate() error { return d.Check() }

// DefaultPath returns the default path of the dashboard.
func (*Dashboard) DefaultPath() string { return defaultPath }

// Provision prepares the page. It does not read anything yet.
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

// Cleanup releases the request log.
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
