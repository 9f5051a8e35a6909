// Package policy is what rgate's policies have in common: how they are switched,
// configured and placed, how they tell requests apart, and how they turn one away.
//
// A policy is an ordinary HTTP handler of Caddy's whose name begins with rgate_.
// It knows nothing of the gateway: it learns the route, the backend and the user
// from placeholders, and works alone in any Caddyfile. Its type embeds Base, and
// its keys in JSON are those in YAML and the subdirectives in a Caddyfile.
package policy

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/logging"
	"github.com/rgate/rgate/internal/trust"
)

// Prefix is what the names of all policies' handlers and directives begin with.
// In a gateway, they are called without it.
const Prefix = "rgate_"

// order is the order in which policies run on a request, wherever they stand.
var order = []string{
	"rgate_notify",
	"rgate_bandwidth",
	"rgate_dashboard",
	"rgate_request_id",
	"rgate_cors",
	"rgate_security",
	"rgate_ip_filter",
	"rgate_jwt",
	"rgate_api_key",
	"authentication", // Caddy's
	"rgate_require",
	"rgate_quota",
	"rgate_rate_limit",
	"rgate_throttle",
	"rgate_transform",
	"rgate_fallback",
	"rgate_cache",
	"rgate_coalesce",
	"rgate_concurrency",
	"rgate_circuit_breaker",
}

// Rank is where in the fixed order of policies a handler belongs, from 1 on. It is
// 0 for a handler that has no place of its own.
func Rank(handler string) int {
	for i, name := range order {
		if name == handler {
			return i + 1
		}
	}
	return 0
}

// Authorizes reports whether a policy by its handler's name decides who is let in.
func Authorizes(handler string) bool { return isBetween(handler, "rgate_ip_filter", "rgate_require") }

// Authenticates reports whether a policy by its handler's name finds out who sent a
// request, or wants to know that.
func Authenticates(handler string) bool { return isBetween(handler, "rgate_jwt", "rgate_require") }

// ReplacesBackend reports whether a policy by its handler's name responds in place of a
// backend with what another request or another backend has brought.
func ReplacesBackend(handler string) bool {
	return isBetween(handler, "rgate_fallback", "rgate_coalesce")
}

func isBetween(handler, first, last string) bool {
	rank := Rank(handler)
	return rank >= Rank(first) && rank <= Rank(last)
}

// Cumulative reports whether a policy by its handler's name holds beside those of the same
// name that stand further out, in place of which others hold.
func Cumulative(handler string) bool { return handler == "rgate_quota" }

// Base is what a policy embeds.
type Base struct {
	// Turns the policy off, also one of the same name that stands further out: on
	// the gateway or the group around. Default: false.
	Disabled bool `json:"disabled,omitempty"`

	name   string
	logger *zap.Logger
}

// Off reports whether the policy is turned off.
func (b *Base) Off() bool { return b.Disabled }

// Start is to be called first when the policy is provisioned, with its name in a
// gateway.
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

// Logger is the policy's logger for what requests bring about. Of equal messages, all
// policies together write a few per second.
func (b *Base) Logger() *zap.Logger { return b.logger }

// Module is a policy, as Directive and the gateway see it.
type Module interface {
	caddyhttp.MiddlewareHandler

	// Check reports the first thing wrong with the options, without setting
	// anything up. Its error has a method Field, if it is about an option.
	Check() error

	Off() bool
}
