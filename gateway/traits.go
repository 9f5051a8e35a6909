package gateway

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
)

// traits are the properties that determine the position of a handler that is not a
// policy. A handler that contains others, such as a subroute, has the traits of all of
// them.
type traits uint8

const (
	// mayRespond is set unless the handler always calls the next handler.
	mayRespond traits = 1 << iota

	// mayChange is set if the handler may change the request before the next handler.
	mayChange

	// authorizes is set if the handler contains a policy that authorizes requests.
	authorizes

	// replacesBackend is set if the handler contains a policy that responds in place of
	// a backend.
	replacesBackend

	// identifies is set if the handler authenticates requests with an external service.
	identifies
)

// neverRespond lists Caddy's handlers that always call the next handler.
var neverRespond = []string{"vars", "map", "headers", "request_body", "tracing", "log_append", "rewrite", "encode"}

// respondOrPass lists handlers that either respond or forward the request unchanged.
var respondOrPass = []string{"static_response", "error", "file_server", "templates", "intercept", "push", "metrics", "acme_server", "rgate_stats"}

// loadedHandler is a handler and its traits. Traits are ignored for policies.
type loadedHandler struct {
	caddyhttp.MiddlewareHandler
	traits traits
}

// loadHandlers loads the HTTP handlers in a field of owner that contains raw JSON.
func loadHandlers(ctx caddy.Context, owner any, field string, raw []json.RawMessage) ([]loadedHandler, error) {
	handlers := make([]loadedHandler, len(raw))
	for i, options := range raw {
		handlers[i].traits = traitsIn(ctx, options)
	}
	modules, err := ctx.LoadModule(owner, field)
	if err != nil || modules == nil {
		return nil, err
	}
	for i, module := range modules.([]any) {
		handlers[i].MiddlewareHandler = module.(caddyhttp.MiddlewareHandler)
	}
	return handlers, nil
}

// traitsIn returns the traits of a handler in JSON form.
func traitsIn(ctx caddy.Context, options json.RawMessage) (all traits) {
	policy.EachHandler(ctx, options, func(name string, options map[string]any) {
		switch rank := policy.Rank(name); {
		case policy.Authorizes(name):
			all |= authorizes
		case policy.ReplacesBackend(name):
			all |= replacesBackend
		case rank > 0 || slices.Contains(neverRespond, name) || name == "subroute" || name == "invoke":
		case name == "reverse_proxy" && isForwardAuth(options):
			all |= identifies | mayChange
		case slices.Contains(respondOrPass, name):
			all |= mayRespond
		default:
			all |= mayRespond | mayChange
		}
	})
	return all
}

// isForwardAuth reports whether a proxy has the form that Caddy's forward_auth
// directive generates. Such a proxy calls the next handler if an external service responds
// with 2xx. Its other responses contain nothing that requires authentication.
func isForwardAuth(proxy map[string]any) bool {
	rewrite, _ := proxy["rewrite"].(map[string]any)
	handlers, _ := proxy["handle_response"].([]any)
	if rewrite["method"] != http.MethodGet || rewrite["uri"] == nil || len(handlers) == 0 {
		return false
	}
	first, _ := handlers[0].(map[string]any)
	match, _ := first["match"].(map[string]any)
	statuses, _ := match["status_code"].([]any)
	return len(match) == 1 && slices.Contains(statuses, any(float64(2)))
}
