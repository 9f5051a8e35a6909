package gateway

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/policy"
)

// Operations are endpoints for those who run the gateway: how it and its backends
// are, and what it did lately. They are not counted in the statistics.
type Operations struct {
	// Where they are, `/gateway` by default, and who may see them.
	policy.ProtectedEndpoint

	// Whether instances of services may register themselves. Needs a handler that
	// authenticates them. Default: no.
	Registration *Registration `json:"registration,omitempty"`

	gateway *Gateway
	log     servedLog
}

const defaultOperationsPath = "/gateway"

// check reports the first thing wrong with the options.
func (o *Operations) check() error {
	if err := o.CheckAccess(defaultOperationsPath); err != nil {
		return fieldProblem("operations", err)
	}
	return o.checkRegistration()
}

func (o *Operations) provision(ctx caddy.Context, g *Gateway) error {
	config, _ := json.Marshal(o) // while the handlers can still be read
	o.gateway = g
	o.log = servedLog{RequestLog: g.stats.RequestLog(), done: ctx, others: policy.SecretsIn(config).Parameters}
	if o.Path == "" {
		o.Path = defaultOperationsPath
	}
	return o.ProvisionAccess(ctx)
}

// answer answers a request that may see the endpoints.
func (o *Operations) answer(w http.ResponseWriter, r *http.Request) error {
	var err error
	if parts, ok := o.registers(r); ok {
		err = o.register(w, r, parts)
	} else {
		err = o.gateway.report(w, r, strings.TrimPrefix(r.URL.Path, o.Path), &o.log)
	}
	var refused reportError
	if errors.As(err, &refused) {
		return writeJSON(w, r, refused.status, map[string]any{"status": refused.status, "error": refused.Error()})
	}
	return err
}

// reportError is an error about what was asked for.
type reportError struct {
	status int
	error
}

// report answers a request for one of the reports.
func (g *Gateway) report(w http.ResponseWriter, r *http.Request, name string, log *servedLog) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return reportError{http.StatusMethodNotAllowed, errors.New("reports can only be read: use GET or HEAD")}
	}
	switch name {
	case "/health":
		h := g.health()
		status := http.StatusOK
		if h.Status == unhealthy {
			status = http.StatusServiceUnavailable
		}
		return writeJSON(w, r, status, h)
	case "/health/live":
		return writeJSON(w, r, http.StatusOK, map[string]string{"status": "alive"})
	case "/health/ready":
		if waiting := g.waitsFor(); len(waiting) > 0 {
			return writeJSON(w, r, http.StatusServiceUnavailable, map[string]any{"status": "starting", "waiting_for": waiting})
		}
		return writeJSON(w, r, http.StatusOK, map[string]string{"status": "ready"})
	case "/services":
		return writeJSON(w, r, http.StatusOK, g.services())
	case "/metrics":
		return writeJSON(w, r, http.StatusOK, g.figures())
	case "/logs":
		if log.RequestLog == nil {
			return reportError{http.StatusNotFound, errors.New("requests are not logged: set operations in the gateway's configuration")}
		}
		return log.serve(w, r)
	}
	return reportError{http.StatusNotFound, errors.New("there is no such report: use /health, /health/live, /health/ready, /services, /metrics or /logs")}
}

// writeJSON answers with a value as JSON, which nobody shall keep.
func writeJSON(w http.ResponseWriter, r *http.Request, status int, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	policy.WriteBody(w, r, status, "application/json", append(body, '\n'))
	return nil
}
