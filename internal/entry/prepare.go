package entry

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Preparer is called for each request of a site before its handlers.
type Preparer interface{ Prepare(r *http.Request) }

// PrepareFunc is a function that implements Preparer.
type PrepareFunc func(r *http.Request)

// Prepare implements Preparer.
func (f PrepareFunc) Prepare(r *http.Request) { f(r) }

type preparer struct {
	name string // the key by which it is added only once
	Preparer
}

// Prepare makes do run for each request of the site that is being provisioned, before any
// handler of the site, unless a preparer of that name exists. A site is a top-level
// `terminal` route, such as that of a host name in a Caddyfile; without one, the whole
// server is a site. Error routes belong to all sites of their server. Prepare returns the
// preparer that runs, and the site's name for a warning if, for the first time, it may be
// called for requests that the module being provisioned does not see.
func Prepare(ctx caddy.Context, name string, do Preparer) (running Preparer, beyond string) {
	e := mounted(ctx)
	if e == nil {
		return do, ""
	}
	p := preparer{name, do}
	e.ofErrors, _, _ = appended(e.ofErrors, p)
	site := provisioning(e.routes)
	added, server := false, ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	hosts := strings.Join(server.Listen, " ")
	if site != nil && site.Terminal && !e.afterFailure {
		hosts = cmp.Or(hostsOf(site), hosts)
		running, added = p.addTo(site)
	} else {
		e.ofAll, running, added = appended(e.ofAll, p)
	}
	if added && (site == nil || !site.Terminal && len(site.MatcherSets) > 0 || hasMatchers(site)) {
		return running, hosts
	}
	return running, ""
}

// hasMatchers reports whether the handlers of a route do not all see the same requests.
func hasMatchers(route *caddyhttp.Route) bool {
	return slices.ContainsFunc(route.HandlersRaw, func(raw json.RawMessage) bool { return bytes.Contains(raw, []byte(`"match"`)) })
}

// hostsOf lists the hosts that a route matches.
func hostsOf(route *caddyhttp.Route) string {
	var hosts []string
	for _, set := range route.MatcherSets {
		for _, matcher := range set {
			if host, ok := matcher.(*caddyhttp.MatchHost); ok {
				hosts = append(hosts, *host...)
			}
		}
	}
	return strings.Join(hosts, " ")
}

// appended returns a list of preparers with one more, unless it has one of that name.
func appended(all []preparer, p preparer) (more []preparer, running Preparer, added bool) {
	for _, other := range all {
		if other.name == p.name {
			return all, other.Preparer, false
		}
	}
	return append(all, p), p.Preparer, true
}

// addTo makes the preparer the last of a route's matchers, so that it is called for exactly
// the requests that the route takes. Unlike a handler, it costs no allocation for a
// request, and leaves the handler after which Caddy's metrics name the route.
func (p preparer) addTo(route *caddyhttp.Route) (running Preparer, added bool) {
	if len(route.MatcherSets) == 0 {
		route.MatcherSets = caddyhttp.MatcherSets{nil}
	}
	for _, matcher := range route.MatcherSets[0] { // all sets have the same
		if other, ok := matcher.(preparer); ok && other.name == p.name {
			return other.Preparer, false
		}
	}
	for i, set := range route.MatcherSets {
		route.MatcherSets[i] = append(set, p)
	}
	return p.Preparer, true
}

// MatchWithError implements caddyhttp.RequestMatcherWithError. It matches all requests.
func (p preparer) MatchWithError(r *http.Request) (bool, error) {
	p.Prepare(r)
	return true, nil
}

// Interface guards
var _ caddyhttp.RequestMatcherWithError = preparer{}
