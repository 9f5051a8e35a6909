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

// Scope is the part of a gateway that a policy applies to. It does not change when the
// configuration is reloaded, and is empty outside of a gateway.
type Scope struct {
	Gateway string // its name
	Level   string // `gateway`, `group`, `route`, `backend`
	Name    string // name of the route or backend, path of the group; empty for the gateway

	// The names of the routes in the group.
	Routes []string

	// The behaviours of an earlier version that the gateway restores.
	Legacy []string
}

type scopeKey struct{}

// WithScope returns a context to provision policies with a scope.
func WithScope(ctx caddy.Context, scope Scope) caddy.Context {
	ctx.Context = context.WithValue(ctx.Context, scopeKey{}, scope)
	return ctx
}

// ScopeOf returns the scope of the policy that is being provisioned.
func ScopeOf(ctx caddy.Context) Scope {
	scope, _ := ctx.Value(scopeKey{}).(Scope)
	return scope
}

// ScopeKey returns a text that identifies the scope, for state that survives a reload. It is
// empty outside of a gateway.
func ScopeKey(ctx caddy.Context) string {
	scope := ScopeOf(ctx)
	if scope.Level == "" {
		return ""
	}
	return scope.Gateway + " " + scope.Level + " " + scope.Name
}

// HasLegacy reports whether the gateway restores a behaviour of an earlier version.
func (s Scope) HasLegacy(behaviour string) bool { return slices.Contains(s.Legacy, behaviour) }

// BackendRef returns the gateway and backend of all requests in the scope, if its level is a
// backend.
func (s Scope) BackendRef() (RouteInfo, bool) {
	return RouteInfo{Gateway: s.Gateway, Backend: s.Name}, s.Level == "backend"
}
