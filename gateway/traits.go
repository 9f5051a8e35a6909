package gateway

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
)

// traits are what the order of a handler that is not a policy depends on. Those of a
// handler with others in it, such as a subroute, are those of all of them.
type traits uint8

const (
	// responds is for a handler that may respond, as far as is known.
	mayRespond traits = 1 << iota

	// prepares is for a handler that may pass on a request that it has changed, which
	// those behind it may rely on.
	mayChange

	// admits is for a handler with a policy in it that decides who is let in.
	authorizes

	// standsIn is for a handler with a policy in it that responds in place of a backend.
	replacesBackend

	// identifies is for a handler that asks a service who has sent a request, and
	// passes the request on or refuses it.
	identifies
)

// neverRespond are Caddy's handlers that never respond: they pass every request on. All
// others may.
var neverRespond = []string{"vars", "map", "headers", "request_body", "tracing", "log_append", "rewrite", "encode"}

// respondOrPass are handlers that respond, or else pass a request on as it is.
var respondOrPass = []string{"static_response", "error", "file_server", "templates", "intercept", "push", "metrics", "acme_server", "rgate_stats"}

// loadedHandler is a handler and its traits. Those of a policy are not used.
type loadedHandler struct {
	caddyhttp.MiddlewareHandler
	traits traits
}

// loadHandlers loads the HTTP handlers that a field of raw JSON names.
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

// traitsIn returns the traits of a handler in its JSON form.
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

// isForwardAuth reports whether a proxy is what Caddy's directive forward_auth stands
// for: it asks another service, and passes a request on whose response is 2xx. So no
// response of it serves anything that needs authentication.
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
