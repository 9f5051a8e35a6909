package policy

import (
	"context"

	"github.com/caddyserver/caddy/v2"
)

type scopeKey struct{}

// WithScope returns a context in which policies are to be provisioned that stand in
// one place: on a gateway, or on a route of it. The text is the same at every reload,
// and no other place of the configuration has it.
func WithScope(ctx caddy.Context, scope string) caddy.Context {
	ctx.Context = context.WithValue(ctx.Context, scopeKey{}, scope)
	return ctx
}

// Scope is where the policy that is being provisioned stands. It is empty if nobody
// has said so. What a policy keeps over a reload, it may know by its scope.
func Scope(ctx caddy.Context) string {
	scope, _ := ctx.Value(scopeKey{}).(string)
	return scope
}
