package gateway

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/gateway/routing"
	"github.com/rgate/rgate/policy"
)

// buildChain returns the handler chain from the route to a backend. levels are the
// handlers of the gateway, the groups and the route. From the outside in, the chain
// contains:
//
//   - deprecation, if the route is deprecated (deprecated.go)
//   - writeFailures, which responds with 502, 503 or 504 (errors.go)
//   - the handlers of all levels, in the order of order.go
//   - stripPrefix, if the route has strip_prefix
//   - forwardIdentity, if any handler is not an rgate policy
//   - the time limit for the backend
//   - the backend's handlers to which the time limit applies
//   - the service of the backend (package upstream)
func (rt *Route) buildChain(levels [][]loadedHandler, b *Backend, deprecated http.Header, g *Gateway) (caddyhttp.Handler, error) {
	all := append(levels[:len(levels):len(levels)], b.around)
	if err := checkOrder(all); err != nil {
		return nil, err
	}
	g.warnOfOrder(rt.name, all)
	handlers := g.order().arrange(all...)
	g.warnings.collect(rt.name, handlers)
	rt.matcher.Preflights = slices.ContainsFunc(handlers, func(c orderedHandler) bool { return handlerName(c.handler) == "rgate_cors" })

	limited := firstWithinTimeout(handlers, len(levels))
	next := b.withTimeout(rt.Timeouts, chain(handlers[limited:], b.service))
	if slices.ContainsFunc(handlers, func(c orderedHandler) bool { return !strings.HasPrefix(handlerName(c.handler), policy.Prefix) }) {
		next = forwardIdentity(next)
	}
	if rt.StripPrefix {
		next = rt.stripPrefix(next)
	}
	next = writeFailures(g.logger, chain(handlers[:limited], next))
	if deprecated != nil {
		next = deprecation(deprecated, next)
	}
	return next, nil
}

// buildStandalone returns the backend's handler chain for requests that another handler
// forwards to it, such as a fallback.
func (b *Backend) buildStandalone(o order) caddyhttp.Handler {
	handlers := o.arrange(b.around)
	limited := firstWithinTimeout(handlers, 0)
	return chain(handlers[:limited], b.withTimeout(nil, chain(handlers[limited:], b.service)))
}

// chain wraps the last handler in the others. The first is the outermost.
func chain(handlers []orderedHandler, last caddyhttp.Handler) caddyhttp.Handler {
	for _, c := range slices.Backward(handlers) {
		last = policy.Before(c.handler, last)
	}
	return last
}

// firstWithinTimeout returns the index of the first handler to which the backend's time
// limit applies. Handlers of outer levels are outside of the limit, as are policies that
// rank before rgate_concurrency, because they may respond after a timeout.
func firstWithinTimeout(handlers []orderedHandler, backendLevel int) int {
	first := len(handlers)
	for first > 0 && handlers[first-1].level == backendLevel {
		if rank := rank(handlers[first-1].handler); rank > 0 && rank < policy.Rank("rgate_concurrency") {
			break
		}
		first--
	}
	return first
}

// everyResponseIn returns the policies that apply to every response, even if no route
// matches: request_id, cors and security.
func everyResponseIn(levels [][]loadedHandler) []orderedHandler {
	return slices.DeleteFunc(order{}.arrange(levels...), func(c orderedHandler) bool {
		rank := rank(c.handler)
		return rank == 0 || rank > policy.Rank("rgate_security")
	})
}

// stripPrefix is a middleware that removes the route's prefix from the path, unless
// another handler has removed or replaced it. Afterwards, it restores the path for outer
// handlers, which may send the request again.
func (rt *Route) stripPrefix(next caddyhttp.Handler) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		path := requestStateOf(r).path
		prefix := path[:rt.matcher.FixedLength(path)]
		if !strings.HasPrefix(r.URL.Path, prefix) {
			return next.ServeHTTP(w, r)
		}
		originalURL, originalURI := r.URL, r.RequestURI
		routing.StripPrefix(r, len(prefix))
		err := next.ServeHTTP(w, r)
		r.URL, r.RequestURI = originalURL, originalURI
		return err
	}
}

// forwardIdentity is a middleware that sets X-User-ID to the user that a Caddy handler
// such as basic_auth has authenticated.
func forwardIdentity(next caddyhttp.Handler) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		policy.ForwardIdentity(r)
		return next.ServeHTTP(w, r)
	}
}
