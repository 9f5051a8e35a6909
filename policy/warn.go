package policy

import "github.com/caddyserver/caddy/v2/modules/caddyhttp"

// Warner is a policy that has warnings about a configuration that is valid. A gateway logs
// each of them once, with the names of the routes that it is about.
type Warner interface {
	// Warnings returns constant messages, given all handlers of a route in the order in
	// which they run, the policy among them.
	Warnings(chain []caddyhttp.MiddlewareHandler) []string
}
