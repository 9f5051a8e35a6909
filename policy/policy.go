// Package policy is what rgate's policies share: the contract with the gateway, the table of
// kinds, their scope in a configuration, the refusal of requests, and identity.
//
// A policy is an HTTP handler of Caddy with a name that begins with rgate_. It does not
// depend on the gateway: it learns the route, the backend and the user from placeholders, and
// works in any Caddyfile. Its type embeds Base. Its keys in JSON are its keys in YAML and its
// subdirectives in a Caddyfile.
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

// Module is a policy, as Directive and the gateway see it.
type Module interface {
	caddyhttp.MiddlewareHandler

	// Check reports the first invalid option, without setting anything up. If the error is
	// about an option, it has a method Field.
	Check() error

	// Off reports whether the policy is disabled.
	Off() bool
}

// PreAuthModule is a policy of which a part runs before authentication.
type PreAuthModule interface {
	Module

	// PreAuthHandler returns the handler that a gateway runs before those that authenticate
	// requests for the policy; nil for none.
	PreAuthHandler() caddyhttp.MiddlewareHandler
}

// Warner is a policy that has warnings about valid configurations. A gateway logs each
// warning once, with the names of its routes.
type Warner interface {
	// Warnings returns constant messages. The chain has all handlers of a route in the order
	// in which they run, including the policy.
	Warnings(chain []caddyhttp.MiddlewareHandler) []string
}

// Base is embedded in all policies.
type Base struct {
	// Disables the policy, and one of the same name on the gateway or the group around.
	// Default: false.
	Disabled bool `json:"disabled,omitempty"`

	name   string
	logger *zap.Logger
}

// Off reports whether the policy is disabled.
func (b *Base) Off() bool { return b.Disabled }

// Start must be called first in Provision, with the name of the policy in a gateway.
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

// Logger returns the logger for events of requests. It is sampled: see logging.Sampled.
func (b *Base) Logger() *zap.Logger { return b.logger }

// Directive is the setup function of a policy's directive. Its syntax follows from the
// policy's type: see options.Unmarshal. The word `off` alone disables the policy.
func Directive[T any, P interface {
	*T
	Module
}](h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h.Next() // the directive's name
	p := P(new(T))
	if err := options.Unmarshal(h.Dispenser, p); err != nil {
		return nil, err
	}
	return p, nil
}
