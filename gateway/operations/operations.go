package operations

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

// Config configures endpoints for those who run the gateway: how it and its backends
// are, and what it did lately. They are not counted in the statistics.
type Config struct {
	// Where they are, `/gateway` by default, and who may see them.
	policy.ProtectedEndpoint

	// Whether instances of services may register themselves. Needs a handler that
	// authenticates them. Default: no.
	Registration *Registration `json:"registration,omitempty"`

	reporter *Reporter
}

// Reporter reports the state of a gateway at run time.
type Reporter struct {
	Gateway  string // its name
	Backends []Backend
	Stats    *stats.Handle
	Registry *Registry // nil: no instance may register

	log       servedLog
	unpublish func()
}

// Backend is a backend of a Reporter.
type Backend struct {
	Name      string
	Scheme    string // empty: http
	Register  bool   // whether instances may register
	Upstreams Upstreams
}

// Upstreams reports where a backend's requests can go.
type Upstreams interface {
	// HasContainers reports whether the backend consists of containers.
	HasContainers() bool

	// Synced reports whether the containers are known.
	Synced() bool

	// Available returns the number of upstreams that can take requests, registered
	// instances included.
	Available() int

	// List returns the containers or static addresses.
	List() []Upstream
}

// Upstream is the state of a container or a static address.
type Upstream struct {
	Address, Container string
	Reason             string // why it gets no requests; empty if it does
	InFlight           *int   // nil for containers
}

// Start makes the reporter available: to the endpoints if o is not nil, to the admin API,
// to the policies, and as metrics. Stop must be called even if Start fails.
func (rep *Reporter) Start(ctx caddy.Context, o *Config) error {
	if o != nil {
		config, _ := json.Marshal(o) // while the handlers can still be read
		rep.log = servedLog{RequestLog: rep.Stats.RequestLog(), done: ctx, others: policy.SecretsIn(config).Parameters}
		if err := o.provision(ctx, rep); err != nil {
			return err
		}
	}
	rep.unpublish = status.Services.Publish(rep.Gateway, func() any { return rep.services() })
	running.Add(rep)
	return registerMetrics(ctx, rep)
}

// Stop ends what Start began. It does nothing for a nil reporter.
func (rep *Reporter) Stop() {
	if rep == nil {
		return
	}
	if rep.unpublish != nil {
		rep.unpublish()
	}
	running.Remove(rep)
}

// DefaultPath is where the endpoints are by default.
const DefaultPath = "/gateway"

// Check reports the first thing wrong with the options.
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

// ServeHTTP serves the endpoints to those who may see them.
func (o *Config) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	return o.ServeProtected(w, r, o.serve)
}

func (o *Config) serve(w http.ResponseWriter, r *http.Request) error {
	var err error
	if parts, ok := o.registers(r); ok {
		err = o.register(w, r, parts)
	} else {
		err = o.reporter.report(w, r, strings.TrimPrefix(r.URL.Path, o.Path), &o.reporter.log)
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
func (rep *Reporter) report(w http.ResponseWriter, r *http.Request, name string, log *servedLog) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return reportError{http.StatusMethodNotAllowed, errors.New("reports can only be read: use GET or HEAD")}
	}
	switch name {
	case "/health":
		h := rep.health()
		status := http.StatusOK
		if h.Status == unhealthy {
			status = http.StatusServiceUnavailable
		}
		return writeJSON(w, r, status, h)
	case "/health/live":
		return writeJSON(w, r, http.StatusOK, map[string]string{"status": "alive"})
	case "/health/ready":
		if waiting := rep.waitsFor(); len(waiting) > 0 {
			return writeJSON(w, r, http.StatusServiceUnavailable, map[string]any{"status": "starting", "waiting_for": waiting})
		}
		return writeJSON(w, r, http.StatusOK, map[string]string{"status": "ready"})
	case "/services":
		return writeJSON(w, r, http.StatusOK, rep.services())
	case "/metrics":
		return writeJSON(w, r, http.StatusOK, rep.figures())
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
