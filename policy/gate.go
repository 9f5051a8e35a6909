package policy

import "github.com/caddyserver/caddy/v2/modules/caddyhttp"

// Gated is a policy of which a part runs before authentication.
type Gated interface {
	Module

	// Gate returns the handler that a gateway puts before whatever authenticates on the way
	// to the policy; nil for none.
	Gate() caddyhttp.MiddlewareHandler
}
