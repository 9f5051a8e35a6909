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

// Preparer is called for each request of a site, before all handlers.
type Preparer interface{ Prepare(r *http.Request) }

// PrepareFunc is a function that implements Preparer.
type PrepareFunc func(r *http.Request)

// Prepare implements Preparer.
func (f PrepareFunc) Prepare(r *http.Request) { f(r) }

type preparer struct {
	name string // unique; a duplicate is ignored
	Preparer
}

// Prepare registers do to run for each request of the site that is being provisioned,
// before all handlers. If a preparer with the same name exists, do is ignored.
//
// A site is a top-level `terminal` route, such as the route of a host name in a
// Caddyfile. Without such a route, the whole server is a site. Error routes belong to
// all sites of their server.
//
// Prepare returns the preparer that is registered. beyond is the name of the site, for
// a warning, if this call is the first that extends the preparer to requests that the
// calling module does not receive.
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

// hasMatchers reports whether some handlers of a route do not receive all of its
// requests.
func hasMatchers(route *caddyhttp.Route) bool {
	return slices.ContainsFunc(route.HandlersRaw, func(raw json.RawMessage) bool { return bytes.Contains(raw, []byte(`"match"`)) })
}

// hostsOf returns the hosts that a route matches, separated by spaces.
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

// appended returns the preparers with p appended, unless p's name exists.
func appended(all []preparer, p preparer) (more []preparer, running Preparer, added bool) {
	for _, other := range all {
		if other.name == p.name {
			return all, other.Preparer, false
		}
	}
	return append(all, p), p.Preparer, true
}

// addTo adds the preparer as the last matcher of a route, so that it is called for
// exactly the requests that match the route. Unlike a handler, a matcher costs no
// allocation per request and does not change the handler name in Caddy's metrics.
func (p preparer) addTo(route *caddyhttp.Route) (running Preparer, added bool) {
	if len(route.MatcherSets) == 0 {
		route.MatcherSets = caddyhttp.MatcherSets{nil}
	}
	for _, matcher := range route.MatcherSets[0] { // all sets contain the same preparers
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
