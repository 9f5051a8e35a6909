package caddyfile

import (
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/rgate/rgate/gateway"
	"github.com/rgate/rgate/internal/options"
)

// defaultGracePeriod is the grace period of a file that sets none. Caddy's default is no
// limit, with which one open stream prevents the end of the process.
const defaultGracePeriod = 30 * time.Second

// gracePeriod returns the grace period. 0 means no limit.
func (doc *document) gracePeriod() time.Duration { return doc.GracePeriod.Or(defaultGracePeriod) }

func (r *reader) checkShutdown(doc *document) error {
	if doc.GracePeriod.IsOff() && doc.GracePeriod != options.TimeoutOff {
		return r.failAt("grace_period", "invalid grace_period: must not be negative: use 0s for no limit, or remove it to use the default (%v)", defaultGracePeriod)
	}
	if doc.ShutdownDelay < 0 {
		return r.failAt("shutdown_delay", "invalid shutdown_delay: must not be negative: remove it for no delay")
	}
	return nil
}

// warnOfGracePeriod returns a warning if the file sets no grace period, and allows
// requests to take longer than the default. Earlier versions had no limit.
func (r *reader) warnOfGracePeriod(doc *document) []caddyconfig.Warning {
	if doc.GracePeriod != 0 {
		return nil
	}
	var longest time.Duration
	var first string
	var names []string
	add := func(kind, name, path string, t *gateway.Timeouts) {
		if t == nil || t.Total.Or(0) <= defaultGracePeriod {
			return
		}
		if first == "" {
			first = path + ".timeouts.total"
		}
		longest = max(longest, t.Total.Or(0))
		names = append(names, kind+" "+name)
	}
	doc.eachRoute(func(path string, route *gateway.Route) { add("route", route.PathPrefix, path, route.Timeouts) })
	for i, backend := range doc.Backends {
		add("backend", backend.Name, element("backends", i), backend.Timeouts)
	}
	if names == nil {
		return nil
	}
	return []caddyconfig.Warning{r.warning(first, fmt.Sprintf(
		"requests may take up to %v (%s), but their connections are closed %v after a signal to end the process: set grace_period, with 0s for no limit as in earlier versions",
		longest, strings.Join(names, ", "), defaultGracePeriod))}
}

// eachRoute calls f for each route and its path.
func (doc *document) eachRoute(f func(path string, route *gateway.Route)) {
	routes := func(path string, routes []*gateway.Route) {
		for i, route := range routes {
			f(element(member(path, "routes"), i), route)
		}
	}
	var groups func(path string, groups []*gateway.Group)
	groups = func(path string, list []*gateway.Group) {
		for i, group := range list {
			at := element(member(path, "groups"), i)
			routes(at, group.Routes)
			groups(at, group.Groups)
		}
	}
	routes("", doc.Routes)
	groups("", doc.Groups)
}

// shutdown writes the global options for the end of the process.
func (p *printer) shutdown(doc *document) {
	if grace := doc.gracePeriod(); grace > 0 {
		p.global = append(p.global, "grace_period "+formatDuration(caddy.Duration(grace)))
	}
	if doc.ShutdownDelay > 0 {
		p.global = append(p.global, "shutdown_delay "+formatDuration(doc.ShutdownDelay))
	}
}
