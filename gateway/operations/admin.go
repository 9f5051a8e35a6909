package operations

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/gateway/upstream"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/status"
)

func init() {
	caddy.RegisterModule(adminGateway{})
}

// newestReporter returns the newest reporter of a gateway. An empty name matches every
// gateway.
func newestReporter(name string) *Reporter {
	return running.Newest(func(rep *Reporter) bool { return name == "" || name == rep.Gateway })
}

// adminGateway serves the operations endpoints on Caddy's admin API, below
// /rgate/gateway: health, health/live, health/ready, services, metrics and logs. The
// query parameter gateway selects one of several gateways.
type adminGateway struct{}

// CaddyModule returns the Caddy module information.
func (adminGateway) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.rgate_gateway",
		New: func() caddy.Module { return new(adminGateway) },
	}
}

const adminPath = "/rgate/gateway"

// Routes returns the admin routes of the endpoints and of closeStreams.
func (a adminGateway) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: adminPath + "/", Handler: caddy.AdminHandlerFunc(a.serve)},
		{Pattern: "/rgate/streams/close", Handler: caddy.AdminHandlerFunc(closeStreams)},
	}
}

// closeStreams closes the WebSockets and other upgraded connections of replaced
// configurations.
func closeStreams(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: errors.New("method not allowed: use POST")}
	}
	return writeJSON(w, r, http.StatusOK, map[string]int{"closed": upstream.CloseReplacedStreams()})
}

func (adminGateway) serve(w http.ResponseWriter, r *http.Request) error {
	name := r.URL.Query().Get("gateway")
	rep := newestReporter(name)
	if rep == nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: unknownGateway(name)}
	}
	log := rep.log
	log.ignored = []string{"gateway"}
	err := rep.serve(w, r, strings.TrimPrefix(r.URL.Path, adminPath), &log)
	var refused statusError
	if errors.As(err, &refused) {
		return caddy.APIError{HTTPStatus: refused.status, Err: refused.error}
	}
	return err
}

// unknownGateway returns the error for the name of a gateway that is not running. The
// name is empty if none was requested.
func unknownGateway(name string) error {
	known := status.Services.Keys()
	if name == "" || len(known) == 0 {
		return errors.New("no gateway is running")
	}
	slices.Sort(known)
	return fmt.Errorf("unknown gateway %q%s: use %s", name, options.Suggest(name, known), strings.Join(known, ", "))
}

// Interface guard
var _ caddy.AdminRouter = (*adminGateway)(nil)
