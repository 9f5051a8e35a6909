package gateway

import (
	"maps"
	"os"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
)

// warnings maps the warnings of a configuration to the names of the affected routes.
type warnings map[string][]string

// collect adds the warnings about the handlers of a route.
func (all warnings) collect(route string, handlers []orderedHandler) {
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

// warnOfChanges adds warnings about options that had another meaning in an earlier
// version.
func (all warnings) warnOfChanges(routes []*Route, backends map[string]*Backend) {
	proxied := proxyInEnvironment()
	for _, rt := range routes {
		leadsTo := func(holds func(*Backend) bool) bool {
			return slices.ContainsFunc(rt.backendNames(), func(name string) bool { return holds(backends[name]) })
		}
		if rt.Timeouts.anyOff() || leadsTo(func(b *Backend) bool { return b.Timeouts.anyOff() }) {
			all.add("a timeout of 0 disables the limit (earlier versions used the default instead): remove the option to use the default", rt.name)
		}
		if leadsTo(func(b *Backend) bool { return b.service.ForwardsClientHost() }) {
			all.add("containers with HTTPS get the client's Host (earlier versions sent the address of the container): no change is required, or set legacy: ["+legacyContainerHost+"] to send the address", rt.name)
		}
		if proxied && leadsTo(func(b *Backend) bool { return b.service.DialsDirectly() }) {
			all.add("backends are dialed directly, although the environment sets a proxy: no change is required, or set legacy: ["+legacyEnvironmentProxy+"] to use the proxy as in earlier versions", rt.name)
		}
	}
}

// anyOff reports whether a time limit is set to 0.
func (t *Timeouts) anyOff() bool {
	return t != nil && (t.Dial == options.TimeoutOff || t.FirstByte == options.TimeoutOff || t.Total == options.TimeoutOff)
}

// proxyInEnvironment reports whether net/http would use a proxy from the environment.
func proxyInEnvironment() bool {
	return slices.ContainsFunc([]string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"},
		func(name string) bool { return os.Getenv(name) != "" })
}
