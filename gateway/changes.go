package gateway

import (
	"os"
	"slices"

	"github.com/rgate/rgate/internal/options"
)

// addChanges adds warnings about options of routes and backends that mean something else
// than in an earlier version.
func (all warnings) addChanges(routes []*Route, backends map[string]*Backend) {
	proxied := proxyInEnvironment()
	for _, rt := range routes {
		leadsTo := func(holds func(*Backend) bool) bool {
			return slices.ContainsFunc(rt.backendNames(), func(name string) bool { return holds(backends[name]) })
		}
		if rt.Timeouts.anyOff() || leadsTo(func(b *Backend) bool { return b.Timeouts.anyOff() }) {
			all.add("time limits written as 0 are off: remove them for the defaults, which 0 stood for in earlier versions", rt.name)
		}
		if proxied && leadsTo(func(b *Backend) bool { return b.service.DialsDirectly() }) {
			all.add("backends are dialled directly, whatever proxy the environment names: nothing needs to be set; earlier versions used that proxy, and legacy: ["+legacyEnvironmentProxy+"] restores that", rt.name)
		}
	}
}

// anyOff reports whether a limit is written as 0.
func (t *Timeouts) anyOff() bool {
	return t != nil && (t.Dial == options.TimeoutOff || t.FirstByte == options.TimeoutOff || t.Total == options.TimeoutOff)
}

// proxyInEnvironment reports whether package net/http would use a proxy.
func proxyInEnvironment() bool {
	return slices.ContainsFunc([]string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"},
		func(name string) bool { return os.Getenv(name) != "" })
}
