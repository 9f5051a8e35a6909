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

// adminDocker provides the /rgate/docker endpoint of the admin API: for every
// engine that is being followed, which containers its selectors found, at which
// addresses, and which were rejected for what reason.
type adminDocker struct{}

// CaddyModule returns the Caddy module information.
func (adminDocker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.rgate_docker",
		New: func() caddy.Module { return new(adminDocker) },
	}
}

// Routes returns the route of the endpoint.
func (a adminDocker) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{
		Pattern: "/rgate/docker",
		Handler: caddy.AdminHandlerFunc(a.serve),
	}}
}

// serve looks the state up when it is asked for: the module is made before there
// is any, and is never told when it goes away.
func (adminDocker) serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return caddy.APIError{
			HTTPStatus: http.StatusMethodNotAllowed,
			Err:        errors.New("method not allowed: use GET"),
		}
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(struct {
		Endpoints []EndpointStatus `json:"endpoints"`
	}{Status()})
}

// Interface guard
var _ caddy.AdminRouter = (*adminDocker)(nil)
