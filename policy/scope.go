package policy

import (
	"context"
	"slices"

	"github.com/caddyserver/caddy/v2"
)

type scopeKey struct{}

// Names of behaviours of an earlier version that policies restore.
const (
	LegacyUnreadableJSON    = "unreadable_json"
	LegacyUncountedFailures = "uncounted_failures"
	LegacyUnlistedFields    = "unlisted_fields"
)

// Standpoint is where in a configuration a policy stands. It is the same at every
// reload, and empty outside of a gateway.
type Standpoint struct {
	Gateway string // the name of the gateway
	Level   string // `gateway`, `group`, `route`, `backend`
	Name    string // of the route or backend, the path of the group; empty for the gateway

	// The names of the routes that are in the group.
	Routes []string

	// The behaviours of an earlier version that the gateway restores.
	Legacy []string
}

// Restores reports whether the gateway around restores a behaviour of an earlier
// version.
func (at Standpoint) Restores(behaviour string) bool { return slices.Contains(at.Legacy, behaviour) }

// WithStandpoint returns a context in which policies are to be provisioned that stand
// in one place.
func WithStandpoint(ctx caddy.Context, at Standpoint) caddy.Context {
	ctx.Context = context.WithValue(ctx.Context, scopeKey{}, at)
	return ctx
}

// Standing is where the policy that is being provisioned stands.
func Standing(ctx caddy.Context) Standpoint {
	at, _ := ctx.Value(scopeKey{}).(Standpoint)
	return at
}

// Home is the place of all requests that come to a policy there, but for the route;
// only on a backend, there is one.
func (at Standpoint) Home() (Place, bool) {
	return Place{Gateway: at.Gateway, Backend: at.Name}, at.Level == "backend"
}

// Scope is a text that no other place of the configuration has. It is empty if nobody
// has said where the policy stands. What a policy keeps over a reload, it may know by
// its scope.
func Scope(ctx caddy.Context) string {
	at := Standing(ctx)
	if at.Level == "" {
		return ""
	}
	return at.Gateway + " " + at.Level + " " + at.Name
}
