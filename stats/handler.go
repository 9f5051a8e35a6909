package stats

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/trust"
)

func init() {
	caddy.RegisterModule(new(Handler))
}

// Handler records statistics of the requests that pass through it, and serves the
// statistics page. Requests for the page are not recorded.
//
// The page is JSON with the number of successful (200–399) and failed (400 and above)
// requests, and their latencies in milliseconds. `?window=1m`, `5m` or `1h` limits it to
// recent requests. `?by=route` adds the statistics of each route. The same statistics are
// exported as Caddy metrics: `rgate_requests_total`, `rgate_request_duration_seconds`,
// `rgate_requests_in_flight` and `rgate_bandwidth_bytes_total`.
type Handler struct {
	Config

	// The name of the statistics, which survive configuration reloads under this name.
	// Handlers with the same name share them. Default: `rgate_stats`.
	Name string `json:"name,omitempty"`

	// The route name under which requests are counted. It distinguishes handlers with the
	// same `name`. Default: `_default`.
	Route string `json:"route,omitempty"`

	handle *Handle
	series *Series
}

// DefaultName is the default name of statistics outside of a gateway.
const DefaultName = "rgate_stats"

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_stats",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision starts recording.
func (h *Handler) Provision(ctx caddy.Context) (err error) {
	trust.MountFilter(ctx)
	if h.Name == "" {
		h.Name = DefaultName
	}
	if h.Route == "" {
		h.Route = DefaultRoute
	}
	if h.handle, err = h.Start(ctx, h.Name); err != nil {
		return err
	}
	h.series = h.handle.Series(h.Route, "")
	return nil
}

// ServeHTTP serves the statistics page, or records the response of the next handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if h.handle.ServesPath(r.URL.Path) {
		return h.handle.ServePage(w, r)
	}
	return h.series.Serve(w, r, next, nil)
}

// Cleanup sends a last snapshot to the sinks and releases the recorder.
func (h *Handler) Cleanup() error { return h.handle.Close() }

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
