// Package dashboard shows how a gateway does: one page with figures and pictures of
// its requests, its traffic, its backends and its quotas.
//
// All of the page is made here, when somebody asks for it. It needs no script, and
// loads nothing from anywhere.
package dashboard

import (
	"cmp"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/bandwidth"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

func init() {
	caddy.RegisterModule(new(Dashboard))
	httpcaddyfile.RegisterDirective("rgate_dashboard", policy.EndpointDirective[Dashboard])
}

// Dashboard is a page for those who run a gateway: requests per second, errors,
// latency, bandwidth of each service, quotas, backends, the slowest routes and the last
// errors, for spans from five minutes to thirty days. It needs the account that
// `bandwidth` keeps, and shows what there is without it.
type Dashboard struct {
	policy.Base

	// Where the page is, `/dashboard` by default, and who may see it.
	policy.Guarded

	// The gateway that the page is about. Default: the one that it stands on, and
	// `rgate_stats` outside of one.
	Gateway string `json:"gateway,omitempty"`

	// The time zone of the times on the page, such as `Europe/Berlin`. Default: `UTC`.
	Timezone string `json:"timezone,omitempty"`

	// How often the page refreshes itself. Default: 15s.
	Refresh caddy.Duration `json:"refresh,omitempty" default:"15s"`

	zone    *time.Location
	log     requestLog
	account func() account // may return nil
	clock   func() time.Time
	memory  memory
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

// Check reports the first thing wrong with the options.
func (d *Dashboard) Check() error {
	if err := d.CheckGuard(defaultPath); err != nil {
		return err
	}
	if _, err := time.LoadLocation(d.Timezone); err != nil {
		return policy.Optionf("timezone", "%q is no time zone that is known here: use one such as Europe/Berlin, or UTC", d.Timezone)
	}
	if d.Refresh != 0 && d.Refresh < shortest {
		return policy.Optionf("refresh", "%s is too often for a page: use 1s or more, such as 15s", time.Duration(d.Refresh))
	}
	return nil
}

// Validate implements caddy.Validator.
func (d *Dashboard) Validate() error { return d.Check() }

// DefaultPath is where the dashboard is unless it is told.
func (*Dashboard) DefaultPath() string { return defaultPath }

// Provision sets the page up. It does not read anything yet.
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
		if ledger := bandwidth.LedgerOf(d.Gateway); ledger != nil {
			return ledger
		}
		return nil
	}
	d.Gateway = cmp.Or(d.Gateway, policy.Standing(ctx).Gateway, stats.DefaultName)
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
	return d.Guard(ctx)
}

// Cleanup lets go of the log of requests.
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
