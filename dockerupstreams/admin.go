package dockerupstreams

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddy.RegisterModule(adminDocker{})
}

// adminDocker serves the admin endpoint /rgate/docker. For each engine, it reports the
// selected containers with their addresses, and the rejected and the almost selected
// containers with the reasons.
type adminDocker struct{}

// CaddyModule returns the Caddy module information.
func (adminDocker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.rgate_docker",
		New: func() caddy.Module { return new(adminDocker) },
	}
}

// Routes implements caddy.AdminRouter.
func (a adminDocker) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{
		Pattern: "/rgate/docker",
		Handler: caddy.AdminHandlerFunc(a.serve),
	}}
}

// serve writes the current status. It looks up the watchers on each request: admin
// modules are provisioned before the apps, and are not notified when a watcher stops.
func (adminDocker) serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return caddy.APIError{
			HTTPStatus: http.StatusMethodNotAllowed,
			Err:        errors.New("method not allowed: use GET"),
		}
	}
	read := Report
	if r.URL.Query().Get("near_misses") == "false" { // without a query to the engines
		read = Status
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(struct {
		Endpoints []EndpointStatus `json:"endpoints"`
	}{read()})
}

// Interface guard
var _ caddy.AdminRouter = (*adminDocker)(nil)
