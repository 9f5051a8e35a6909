package gateway

import (
	"maps"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/rgate/rgate/policy"
)

// warnings are what policies warn of when a configuration is loaded: message → the names
// of the routes.
type warnings map[string][]string

// collect adds the warnings about the handlers of a route.
func (all warnings) collect(route string, handlers []composed) {
	chain := make([]caddyhttp.MiddlewareHandler, len(handlers))
	for i, c := range handlers {
		chain[i] = c.handler
	}
	for _, handler := range chain {
		warner, ok := handler.(policy.Warner)
		if !ok {
			continue
		}
		for _, message := range warner.Warnings(chain) {
			all.add(message, route)
		}
	}
}

// add adds a warning about a route, once for all of its backends.
func (all warnings) add(message, route string) {
	if routes := all[message]; len(routes) == 0 || routes[len(routes)-1] != route {
		all[message] = append(routes, route)
	}
}

// log logs each warning once.
func (all warnings) log(logger *zap.Logger) {
	for _, message := range slices.Sorted(maps.Keys(all)) {
		logger.Warn(message, zap.Strings("routes", all[message]))
	}
}
