// Package operations serves the operations endpoints of a gateway: health, services,
// totals and the request log. The endpoints are available below a path of the gateway
// and on Caddy's admin API.
package operations

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/policy"
)

// DefaultPath is the default path of the endpoints.
const DefaultPath = "/gateway"

// Config configures the operations endpoints: health, services, totals and the request
// log. Statistics exclude requests to them.
type Config struct {
	// The path of the endpoints, `/gateway` by default, and the clients that may use
	// them.
	policy.ProtectedEndpoint

	// Lets instances of services register themselves. Requires a handler that
	// authenticates the instances. Default: disabled.
	Registration *Registration `json:"registration,omitempty"`

	reporter *Reporter
}

// Check reports the first invalid option.
func (o *Config) Check() error {
	if err := o.CheckAccess(DefaultPath); err != nil {
		return err
	}
	return o.checkRegistration()
}

func (o *Config) provision(ctx caddy.Context, rep *Reporter) error {
	o.reporter = rep
	if o.Path == "" {
		o.Path = DefaultPath
	}
	return o.ProvisionAccess(ctx)
}

// ServeHTTP serves the endpoints to allowed clients.
func (o *Config) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	return o.ServeProtected(w, r, o.serve)
}

func (o *Config) serve(w http.ResponseWriter, r *http.Request) error {
	var err error
	if parts, ok := o.registrationPath(r); ok {
		err = o.serveRegistration(w, r, parts)
	} else {
		err = o.reporter.serve(w, r, strings.TrimPrefix(r.URL.Path, o.Path), &o.reporter.log)
	}
	var refused statusError
	if errors.As(err, &refused) {
		return writeJSON(w, r, refused.status, map[string]any{"status": refused.status, "error": refused.Error()})
	}
	return err
}

// statusError is an error with the status code of the response.
type statusError struct {
	status int
	error
}

// serve responds with the report that has the given name.
func (rep *Reporter) serve(w http.ResponseWriter, r *http.Request, name string, log *requestLog) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return statusError{http.StatusMethodNotAllowed, errors.New("reports are read-only: use GET or HEAD")}
	}
	switch name {
	case "/health":
		h := rep.health()
		code := http.StatusOK
		if h.Status == unhealthy {
			code = http.StatusServiceUnavailable
		}
		return writeJSON(w, r, code, h)
	case "/health/live":
		return writeJSON(w, r, http.StatusOK, map[string]string{"status": "alive"})
	case "/health/ready":
		if caddy.Exiting() {
			return writeJSON(w, r, http.StatusServiceUnavailable, map[string]string{"status": "stopping"})
		}
		if waiting := rep.unsynced(); len(waiting) > 0 {
			return writeJSON(w, r, http.StatusServiceUnavailable, map[string]any{"status": "starting", "waiting_for": waiting})
		}
		ready := map[string]any{"status": "ready"}
		if unavailable := rep.unavailable(); len(unavailable) > 0 {
			ready["degraded"] = unavailable
		}
		return writeJSON(w, r, http.StatusOK, ready)
	case "/services":
		return writeJSON(w, r, http.StatusOK, rep.detailedServices())
	case "/metrics":
		return writeJSON(w, r, http.StatusOK, rep.totals())
	case "/logs":
		if log.RequestLog == nil {
			return statusError{http.StatusNotFound, errors.New("the request log is disabled: set operations in the gateway's configuration")}
		}
		return log.serve(w, r)
	}
	return statusError{http.StatusNotFound, errors.New("unknown report: use /health, /health/live, /health/ready, /services, /metrics or /logs")}
}

// writeJSON responds with a value as JSON. Caches must not store the response.
func writeJSON(w http.ResponseWriter, r *http.Request, status int, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	policy.WriteBody(w, r, status, "application/json", append(body, '\n'))
	return nil
}
