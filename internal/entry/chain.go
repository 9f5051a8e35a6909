package entry

import (
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// chainOf returns a handler that runs the entry's routes, then next. Caddy builds the
// handler chain of a route for each request. To save these allocations, the entry builds
// it once, unless a route is in a group or the server has metrics or tracing.
func (e *entry) chainOf(next caddyhttp.Handler) caddyhttp.Handler {
	if !e.plain || slices.ContainsFunc(e.routes, func(route caddyhttp.Route) bool { return route.Group != "" }) {
		return e.routes.Compile(next)
	}
	chain := next
	for _, route := range slices.Backward(e.routes) {
		handlers := chain
		if route.Terminal {
			handlers = next
		}
		for _, handler := range slices.Backward(route.Handlers) {
			handlers = boundHandler{handler, handlers}
		}
		if len(route.MatcherSets) > 0 {
			handlers = &boundRoute{route.MatcherSets, handlers, chain}
		}
		chain = handlers
	}
	return chain
}

// isPlain reports whether the server that is being provisioned has neither metrics nor
// tracing for its routes.
func isPlain(ctx caddy.Context, server *caddyhttp.Server) bool {
	for _, module := range ctx.Modules() {
		if app, ok := module.(*caddyhttp.App); ok {
			return app.Metrics == nil && (server.Logs == nil || !server.Logs.Trace)
		}
	}
	return false
}

// boundHandler is a middleware bound to its next handler.
type boundHandler struct {
	caddyhttp.MiddlewareHandler
	next caddyhttp.Handler
}

// ServeHTTP implements caddyhttp.Handler.
func (b boundHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	return b.MiddlewareHandler.ServeHTTP(w, r, b.next)
}

// boundRoute runs its handlers for matching requests.
type boundRoute struct {
	matchers       caddyhttp.MatcherSets
	handlers, next caddyhttp.Handler
}

// ServeHTTP implements caddyhttp.Handler.
func (b *boundRoute) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	matches, err := b.matchers.AnyMatchWithError(r)
	switch {
	case err != nil:
		return err
	case matches:
		return b.handlers.ServeHTTP(w, r)
	}
	return b.next.ServeHTTP(w, r)
}
