package policy

import (
	"context"
	"slices"

	"github.com/caddyserver/caddy/v2"
)

// Names of behaviours of an earlier version that a gateway can restore.
const (
	LegacyUnreadableJSON    = "unreadable_json"
	LegacyUncountedFailures = "uncounted_failures"
	LegacyUnlistedFields    = "unlisted_fields"
)

// Scope is the part of a gateway that a policy applies to. It stays the same across
// reloads and is empty outside of a gateway.
type Scope struct {
	Gateway string // gateway name
	Level   string // `gateway`, `group`, `route`, `backend`
	Name    string // name of the route or backend, or path of the group; empty for a gateway

	// The names of the routes in the group. Only set for a group.
	Routes []string

	// The behaviours of an earlier version that the gateway restores.
	Legacy []string
}

type scopeKey struct{}

// WithScope returns a context for provisioning policies in a scope.
func WithScope(ctx caddy.Context, scope Scope) caddy.Context {
	ctx.Context = context.WithValue(ctx.Context, scopeKey{}, scope)
	return ctx
}

// ScopeOf returns the scope of the policy that is being provisioned.
func ScopeOf(ctx caddy.Context) Scope {
	scope, _ := ctx.Value(scopeKey{}).(Scope)
	return scope
}

// ScopeKey returns a string that identifies the scope, for state that is kept across
// reloads. It is empty outside of a gateway.
func ScopeKey(ctx caddy.Context) string {
	scope := ScopeOf(ctx)
	if scope.Level == "" {
		return ""
	}
	return scope.Gateway + " " + scope.Level + " " + scope.Name
}

// HasLegacy reports whether the gateway restores a behaviour of an earlier version.
func (s Scope) HasLegacy(behaviour string) bool { return slices.Contains(s.Legacy, behaviour) }

// BackendRef returns the gateway and backend of the scope. It reports false if the
// level is not a backend.
func (s Scope) BackendRef() (RouteInfo, bool) {
	return RouteInfo{Gateway: s.Gateway, Backend: s.Name}, s.Level == "backend"
}
