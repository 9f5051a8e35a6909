package bandwidth

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/bandwidth/scrape"
	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

func init() {
	caddy.RegisterModule(new(Meter))
	httpcaddyfile.RegisterDirective("rgate_bandwidth", policy.EndpointDirective[Meter])
}

// Meter records the bytes of a gateway's requests in an SQL database, by minute, service
// and route. Counts of body bytes are exact. It serves reports under its path, if one is
// set.
//
// It writes every few seconds. While the database is unavailable, rows stay in memory,
// and requests are served as usual.
type Meter struct {
	policy.Base

	// The path of the reports, and the clients that may read them. Default: none.
	policy.ProtectedEndpoint

	// The database URL: `sqlite:///var/lib/rgate/bandwidth.db`, or
	// `postgres://user:password@host/database`, which several gateways may share.
	// Placeholders such as `{env.PASSWORD}` are replaced. Default: SQLite in the file
	// `rgate/bandwidth.db` under Caddy's data directory.
	Store string `json:"store,omitempty"`

	// The name of this gateway in reports. Gateways that share a database must have
	// different names. Default: the host name, followed by a slash and the gateway's name
	// unless that is `rgate`.
	Node string `json:"node,omitempty"`

	// The retention of minute, hour and day rows. Default: 7d, 90d and 1095d.
	Retention *Retention `json:"retention,omitempty"`

	// The interval between writes to the database: 1s to 10s. If the process is killed,
	// the bytes of up to `flush_interval` and one second are lost. Default: `5s`.
	FlushInterval caddy.Duration `json:"flush_interval,omitempty" default:"5s"`

	// Other gateways whose bytes are recorded in the same database. Default: none.
	Sources []*scrape.Source `json:"sources,omitempty"`

	// Whether the metrics are also exported under the names of Kong's Prometheus plugin.
	// Default: false.
	KongMetrics bool `json:"kong_metrics,omitempty"`

	// The gateway whose bytes are recorded, by the name of its statistics. Default: the
	// gateway that contains the handler, or `rgate_stats` outside of a gateway.
	Gateway string `json:"gateway,omitempty"`

	ledger  *store.Store
	key     store.ID
	reports reports
	config  any // identifies the configuration
}

// Retention is the time for which rows of each length are kept. Longer rows must be kept
// at least as long as shorter rows.
type Retention struct {
	// The time for which minute rows are kept. Minimum: 1h. Default: `7d`.
	Minutes caddy.Duration `json:"minutes,omitempty" default:"7d"`

	// The time for which hour rows are kept. Default: `90d`, or `minutes` if longer.
	Hours caddy.Duration `json:"hours,omitempty" default:"90d"`

	// The time for which day rows are kept. Default: `1095d` (three years), or `hours` if
	// longer.
	Days caddy.Duration `json:"days,omitempty" default:"1095d"`
}

// CaddyModule returns the Caddy module information.
func (*Meter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_bandwidth",
		New: func() caddy.Module { return new(Meter) },
	}
}

// Provision starts recording. It does not open the database.
func (m *Meter) Provision(ctx caddy.Context) error {
	if err := m.Start(ctx, "bandwidth"); err != nil || m.Off() {
		return err
	}
	m.Gateway = cmp.Or(m.Gateway, policy.ScopeOf(ctx).Gateway, stats.DefaultName)
	url, err := m.fillStore()
	if err != nil {
		return err
	}
	at, err := store.ParseAddress(url)
	if err != nil {
		return options.Errorf("store", "%v", err)
	}
	m.key = store.ID{Gateway: m.Gateway, URL: url, Node: m.Node}
	if m.Node == "" {
		m.key.Node = defaultNode(m.Gateway)
	}
	if err := m.Check(); err != nil {
		return err
	}
	if err := m.checkCounted(ctx); err != nil {
		return err
	}
	m.config = ctx.GetMetricsRegistry()
	if m.Path != "" {
		if err := m.ProvisionAccess(ctx); err != nil {
			return err
		}
	}
	if m.ledger, err = store.Acquire(m.key, at, m.settings()); err != nil {
		return err
	}
	return m.reports.open(ctx, m)
}

// defaultStore returns the URL of a SQLite file in Caddy's data directory.
func defaultStore() string {
	return "sqlite://" + (&url.URL{Path: filepath.Join(caddy.AppDataDir(), "rgate", "bandwidth.db")}).EscapedPath()
}

func defaultNode(gateway string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	if gateway == "rgate" {
		return host
	}
	return host + "/" + gateway
}

// fillStore returns the store URL with placeholders replaced. Values in the credentials
// are URL-escaped.
func (m *Meter) fillStore() (string, error) {
	if m.Store == "" {
		return defaultStore(), nil
	}
	repl := caddy.NewReplacer()
	at := strings.LastIndexByte(m.Store, '@')
	credentials, err := repl.ReplaceFunc(m.Store[:at+1], func(name string, value any) (any, error) {
		if caddy.ToString(value) == "" {
			return nil, options.Errorf("store", "the placeholder {%s} in store is empty: set its value or remove it", name)
		}
		return strings.ReplaceAll(url.QueryEscape(caddy.ToString(value)), "+", "%20"), nil
	})
	if err != nil {
		return "", err
	}
	rest, err := repl.ReplaceOrErr(m.Store[at+1:], true, true)
	if err != nil {
		return "", options.Errorf("store", "invalid store: %v: set the value or remove the placeholder", err)
	}
	return credentials + rest, nil
}

// settings returns the store settings that a reload may change.
func (m *Meter) settings() store.Settings {
	s := store.Settings{FlushInterval: store.DefaultFlushInterval, Retention: store.DefaultRetention}
	if m.FlushInterval > 0 {
		s.FlushInterval = time.Duration(m.FlushInterval)
	}
	if m.Retention != nil {
		s.Retention = m.Retention.filled()
	}
	return s
}

// filled returns the retention with defaults applied. A value longer than the next
// default extends that default.
func (r *Retention) filled() store.Retention {
	kept := store.DefaultRetention
	if r.Minutes > 0 {
		kept.Minutes = time.Duration(r.Minutes)
	}
	kept.Hours = max(kept.Hours, kept.Minutes)
	if r.Hours > 0 {
		kept.Hours = time.Duration(r.Hours)
	}
	kept.Days = max(kept.Days, kept.Hours)
	if r.Days > 0 {
		kept.Days = time.Duration(r.Days)
	}
	return kept
}

// Check returns an error for the first invalid option, or nil.
func (m *Meter) Check() error {
	if err := m.CheckAccess("/metrics/bandwidth_used"); err != nil {
		return err
	}
	if m.Path == "" && (len(m.Allow) > 0 || len(m.Hosts) > 0 || len(m.HandlersRaw) > 0) {
		option := "allow"
		if len(m.Allow) == 0 && len(m.Hosts) > 0 {
			option = "hosts"
		} else if len(m.Allow) == 0 {
			option = "handle"
		}
		return options.Errorf(option, "%[1]s requires path: set path, such as /metrics/bandwidth_used, or remove %[1]s", option)
	}
	if m.Store != "" && !strings.Contains(m.Store, "{") {
		if _, err := store.ParseAddress(m.Store); err != nil {
			return options.Errorf("store", "%v", err)
		}
	}
	every := time.Duration(m.FlushInterval)
	if every != 0 && (every < time.Second || every > store.MaxFlushInterval) {
		return options.Errorf("flush_interval", "invalid flush_interval %s: must be 1s to %s", every, store.MaxFlushInterval)
	}
	if m.Retention != nil {
		if err := m.Retention.check(); err != nil {
			return err
		}
	}
	if err := scrape.Check(m.Sources); err != nil {
		return err
	}
	for i, s := range m.Sources {
		if node := cmp.Or(m.key.Node, m.Node); node != "" && s.Name == node {
			return options.Errorf(fmt.Sprintf("sources[%d].name", i), "invalid name %q: must differ from the node of this gateway: use another name for the source, or set node", s.Name)
		}
	}
	return nil
}

func (r *Retention) check() error {
	for _, d := range []struct {
		name  string
		value caddy.Duration
	}{{"minutes", r.Minutes}, {"hours", r.Hours}, {"days", r.Days}} {
		if d.value < 0 {
			return options.Errorf("retention."+d.name, "invalid %s %s: must not be negative: use a duration such as 7d", d.name, inDays(time.Duration(d.value)))
		}
	}
	kept := r.filled()
	switch {
	case kept.Minutes < time.Hour:
		return options.Errorf("retention.minutes", "invalid minutes %s: must be at least 1h", inDays(kept.Minutes))
	case kept.Hours < kept.Minutes:
		return options.Errorf("retention.hours", "invalid hours %s: must not be shorter than minutes, %s", inDays(kept.Hours), inDays(kept.Minutes))
	case kept.Days < kept.Hours:
		return options.Errorf("retention.days", "invalid days %s: must not be shorter than hours, %s", inDays(kept.Days), inDays(kept.Hours))
	}
	return nil
}

// inDays formats a duration in days if possible.
func inDays(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	}
	return d.String()
}

// Validate implements caddy.Validator.
func (m *Meter) Validate() error { return m.Check() }

// ServeHTTP serves reports under the path, and calls the next handler for other requests.
func (m *Meter) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if m.Off() || !m.Serves(r.URL.Path) {
		return next.ServeHTTP(w, r)
	}
	return m.ServeProtected(w, r, m.serve)
}

// Cleanup releases the store. The store stays open if another configuration uses it.
func (m *Meter) Cleanup() error {
	if m.ledger == nil {
		return nil
	}
	err := m.reports.close(m)
	m.ledger = nil
	return errors.Join(err, store.Release(m.key))
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Meter)(nil)
	_ caddy.Validator             = (*Meter)(nil)
	_ caddy.CleanerUpper          = (*Meter)(nil)
	_ caddyhttp.MiddlewareHandler = (*Meter)(nil)
	_ policy.Endpoint             = (*Meter)(nil)
)
