package operations

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/gateway/upstream"
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

// Reporter reports the state of a running gateway.
type Reporter struct {
	Gateway  string // gateway name
	Backends []Backend
	Stats    *stats.Handle
	Registry *Registry // nil: registration is disabled

	log       requestLog
	unpublish func()
}

// Backend is a backend of the gateway.
type Backend struct {
	Name     string
	Scheme   string // empty: http
	Register bool   // instances may register
	Service  Service
}

// Service reports the upstreams of a backend.
type Service interface {
	// HasContainers reports whether the backend's upstreams are containers.
	HasContainers() bool

	// Synced reports whether the containers that can be known are known.
	Synced() bool

	// Available returns the number of upstreams that can receive requests, including
	// registered instances.
	Available() int

	// Upstreams returns the containers or static addresses.
	Upstreams() []upstream.Report

	// Excluded returns the containers that are excluded on purpose or almost selected.
	Excluded() []upstream.Report
}

// running holds the reporters of all running gateways.
var running status.Running[*Reporter]

// Start publishes the reports on the admin API, to policies, as metrics and, unless
// config is nil, on its endpoints. The caller must call Stop even if Start fails.
func (rep *Reporter) Start(ctx caddy.Context, config *Config) error {
	if config != nil {
		raw, _ := json.Marshal(config) // provisioning clears the handlers
		rep.log = requestLog{RequestLog: rep.Stats.RequestLog(), done: ctx, ignored: policy.SecretsIn(raw).Parameters}
		if err := config.provision(ctx, rep); err != nil {
			return err
		}
	}
	rep.unpublish = status.Services.Publish(rep.Gateway, func() any { return rep.detailedServices() })
	running.Add(rep)
	return registerMetrics(ctx, rep)
}

// Stop unpublishes the reports. A nil reporter is ignored.
func (rep *Reporter) Stop() {
	if rep == nil {
		return
	}
	if rep.unpublish != nil {
		rep.unpublish()
	}
	running.Remove(rep)
}
