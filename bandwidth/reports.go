package bandwidth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/bandwidth/api"
	"github.com/rgate/rgate/bandwidth/scrape"
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/stats"
)

func init() {
	caddy.RegisterModule(adminBandwidth{})
}

// reports holds the parts of a meter other than its store: the REST endpoints, the
// scrapers and Kong's metrics.
type reports struct {
	api      *api.Handler
	scrapers []*scrape.Scraper
	release  func() error // releases the recorder of Kong's metrics
}

// open starts the reports. The caller must call close, also after an error.
func (r *reports) open(ctx caddy.Context, m *Meter) error {
	r.api = &api.Handler{
		Base: m.Path, Store: m.ledger, Logger: m.Logger(), Now: time.Now,
		Quotas:  func() []any { return publishedQuotas(m.Gateway) },
		Sources: func() any { return r.status() },
	}
	for _, source := range m.Sources {
		s, err := scrape.Start(m.Gateway, *source, m.ledger, m.Logger())
		if err != nil {
			return err
		}
		r.scrapers = append(r.scrapers, s)
	}
	if err := scrape.RegisterMetrics(ctx, r.scrapers); err != nil {
		return fmt.Errorf("registering the metrics of sources: %w", err)
	}
	if m.KongMetrics {
		if err := r.openKong(ctx, m); err != nil {
			return fmt.Errorf("registering Kong's metrics: %w", err)
		}
	}
	running.Add(m)
	return nil
}

func (r *reports) openKong(ctx caddy.Context, m *Meter) error {
	recorder, release, err := stats.HoldRecorder(m.Gateway)
	if err != nil {
		return err
	}
	r.release = release
	ledger := m.ledger
	return registerKong(ctx, kongGateway{
		name: m.Gateway, node: ledger.Node, recorder: recorder,
		reachable: func() bool { ok, _ := ledger.Health(); return ok },
	})
}

// close stops the reports of a meter.
func (r *reports) close(m *Meter) error {
	running.Remove(m)
	var stopping sync.WaitGroup
	for _, s := range r.scrapers {
		stopping.Go(s.Stop)
	}
	stopping.Wait()
	r.scrapers = nil
	if r.release == nil {
		return nil
	}
	return r.release()
}

// status returns the status of each source.
func (r *reports) status() []scrape.Status {
	all := make([]scrape.Status, len(r.scrapers))
	for i, s := range r.scrapers {
		all[i] = s.Status()
	}
	return all
}

// publishedQuotas returns the published quotas of a gateway in a stable order.
func publishedQuotas(gateway string) []any {
	all := slices.Concat(status.Decode[[]json.RawMessage](status.Quotas.All(gateway))...)
	slices.SortFunc(all, func(a, b json.RawMessage) int { return bytes.Compare(a, b) })
	list := make([]any, len(all))
	for i, one := range all {
		list[i] = one
	}
	return list
}

// serve handles an authorized request under the meter's path.
func (m *Meter) serve(w http.ResponseWriter, r *http.Request) error {
	return m.reports.api.Serve(w, r)
}

// running holds the meters of the process.
var running status.Running[*Meter]

// runningMeter returns the newest meter of a gateway, or of any gateway if the name is
// empty.
func runningMeter(gateway string) *Meter {
	return running.Newest(func(m *Meter) bool { return gateway == "" || gateway == m.Gateway })
}

// adminBandwidth serves the bandwidth reports on the admin API under /rgate/bandwidth.
// Query parameters are the same as on a gateway. `?name=` selects one of several
// gateways.
type adminBandwidth struct{}

// CaddyModule returns the Caddy module information.
func (adminBandwidth) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.rgate_bandwidth",
		New: func() caddy.Module { return new(adminBandwidth) },
	}
}

const adminPath = "/rgate/bandwidth"

// Routes returns the admin API routes of the reports.
func (a adminBandwidth) Routes() []caddy.AdminRoute {
	serve := caddy.AdminHandlerFunc(a.serve)
	return []caddy.AdminRoute{{Pattern: adminPath, Handler: serve}, {Pattern: adminPath + "/", Handler: serve}}
}

func (adminBandwidth) serve(w http.ResponseWriter, r *http.Request) error {
	query, malformed := url.ParseQuery(r.URL.RawQuery)
	name := query.Get("name")
	m := runningMeter(name)
	if m == nil {
		if name != "" {
			return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: fmt.Errorf("unknown gateway %q: no running gateway of this name records bandwidth", name)}
		}
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("no gateway records bandwidth: set bandwidth in its configuration")}
	}
	asked := r.Clone(r.Context())
	if malformed == nil { // otherwise api.Serve reports the error
		query.Del("name")
		asked.URL.RawQuery = query.Encode()
	}
	api := *m.reports.api
	api.Base = adminPath
	return api.Serve(w, asked)
}

// Interface guard
var _ caddy.AdminRouter = (*adminBandwidth)(nil)
