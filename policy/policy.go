// Package policy contains the common parts of rgate's policies: the interfaces to the
// gateway, the table of policy kinds, scopes, rejections and identity.
//
// A policy is a Caddy HTTP handler whose name begins with rgate_. It does not depend on
// package gateway: it reads the route and backend from the RequestState, if any, and the
// user from placeholders. Its type embeds Base. Its JSON keys are also its YAML keys and
// Caddyfile subdirectives.
package policy

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/logging"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/trust"
)

// Module is the interface of policies for Directive and the gateway.
type Module interface {
	caddyhttp.MiddlewareHandler

	// Check returns an error for the first invalid option, without provisioning. An
	// error about an option has a method Field.
	Check() error

	// Off reports whether the policy is disabled.
	Off() bool
}

// PreAuthModule is a policy with a handler that runs before authentication.
type PreAuthModule interface {
	Module

	// PreAuthHandler returns the handler that a gateway runs before authentication
	// handlers, or nil.
	PreAuthHandler() caddyhttp.MiddlewareHandler
}

// Warner is a policy that returns warnings about valid configurations. A gateway logs
// each warning once, with the names of its routes.
type Warner interface {
	// Warnings returns constant messages. chain contains all handlers of a route in the
	// order in which they run, including the policy.
	Warnings(chain []caddyhttp.MiddlewareHandler) []string
}

// Base holds the common options and state of policies. All policies embed it.
type Base struct {
	// Disables the policy, including the same policy on an outer level of the gateway.
	// Default: false.
	Disabled bool `json:"disabled,omitempty"`

	name   string
	logger *zap.Logger
}

// Off reports whether the policy is disabled.
func (b *Base) Off() bool { return b.Disabled }

// Start initializes the policy. Provision must call it first, with the policy's name in
// a gateway.
func (b *Base) Start(ctx caddy.Context, name string) error {
	b.name = name
	trust.MountFilter(ctx)
	b.logger = logging.Sampled(ctx.Logger())
	if !b.Disabled {
		if err := trust.CheckFields(ctx, ctx.Module()); err != nil {
			return err
		}
		if err := checkReached(ctx, Prefix+name); err != nil {
			return err
		}
	}
	return registerRefusals(ctx)
}

// Logger returns the logger for request events. It is sampled: see logging.Sampled.
func (b *Base) Logger() *zap.Logger { return b.logger }

// Directive parses a policy's directive. The policy's type defines the syntax: see
// options.Unmarshal. The only argument `off` disables the policy.
func Directive[T any, P interface {
	*T
	Module
}](h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h.Next() // consume the directive name
	p := P(new(T))
	if err := options.Unmarshal(h.Dispenser, p); err != nil {
		return nil, err
	}
	return p, nil
}
