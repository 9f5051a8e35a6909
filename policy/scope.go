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

// Scope is where in a configuration a policy stands. It is the same at every
// reload, and empty outside of a gateway.
type Scope struct {
	Gateway string // the name of the gateway
	Level   string // `gateway`, `group`, `route`, `backend`
	Name    string // of the route or backend, the path of the group; empty for the gateway

	// The names of the routes that are in the group.
	Routes []string

	// The behaviours of an earlier version that the gateway restores.
	Legacy []string
}

// HasLegacy reports whether the gateway around restores a behaviour of an earlier
// version.
func (at Scope) HasLegacy(behaviour string) bool { return slices.Contains(at.Legacy, behaviour) }

// WithStandpoint returns a context in which policies are to be provisioned that stand
// in one place.
func WithScope(ctx caddy.Context, at Scope) caddy.Context {
	ctx.Context = context.WithValue(ctx.Context, scopeKey{}, at)
	return ctx
}

// ScopeOf returns where the policy that is being provisioned stands.
func ScopeOf(ctx caddy.Context) Scope {
	at, _ := ctx.Value(scopeKey{}).(Scope)
	return at
}

// BackendRef is the place of all requests that come to a policy there, but for the route;
// only on a backend, there is one.
func (at Scope) BackendRef() (RouteInfo, bool) {
	return RouteInfo{Gateway: at.Gateway, Backend: at.Name}, at.Level == "backend"
}

// ScopeKey returns a text that no other place of the configuration has. It is empty if nobody
// has said where the policy stands. What a policy keeps over a reload, it may know by
// its scope.
func ScopeKey(ctx caddy.Context) string {
	at := ScopeOf(ctx)
	if at.Level == "" {
		return ""
	}
	return at.Gateway + " " + at.Level + " " + at.Name
}
