package policy

import "github.com/caddyserver/caddy/v2/modules/caddyhttp"

// PreAuthModule is a policy of which a part runs before authentication.
type PreAuthModule interface {
	Module

	// PreAuthHandler returns the handler that a gateway puts before whatever authenticates on the way
	// to the policy; nil for none.
	PreAuthHandler() caddyhttp.MiddlewareHandler
}
