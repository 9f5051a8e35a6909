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

// preparer is called for each request of a site before its handlers.
type preparer struct {
	name    string // the key by which it is added only once
	prepare func(*http.Request)
}

// Prepare makes prepare run for each request of the site that is being provisioned, before
// any handler of the site, unless a preparer of that name exists. A site is a top-level
// `terminal` route, such as that of a host name in a Caddyfile; without one, the whole
// server is a site. Error routes belong to all sites of their server. Prepare returns the
// site's name for a warning if, for the first time, prepare may be called for requests that
// the module being provisioned does not see.
func Prepare(ctx caddy.Context, name string, prepare func(*http.Request)) (beyond string) {
	e := mounted(ctx)
	if e == nil {
		return ""
	}
	p := preparer{name, prepare}
	e.ofErrors, _ = appended(e.ofErrors, p)
	site := provisioning(e.routes)
	added, server := false, ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	hosts := strings.Join(server.Listen, " ")
	if site != nil && site.Terminal && !e.afterFailure {
		hosts = cmp.Or(hostsOf(site), hosts)
		added = p.addTo(site)
	} else {
		e.ofAll, added = appended(e.ofAll, p)
	}
	if added && (site == nil || !site.Terminal && len(site.MatcherSets) > 0 || hasMatchers(site)) {
		return hosts
	}
	return ""
}

// hasMatchers reports whether the handlers of a route see different requests.
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

// appended returns preparers with one more, unless it is among them.
func appended(all []preparer, p preparer) (more []preparer, added bool) {
	if slices.ContainsFunc(all, func(other preparer) bool { return other.name == p.name }) {
		return all, false
	}
	return append(all, p), true
}

// addTo adds the preparer as the last of a route's matchers, so that it is called for
// exactly the requests of the route. Unlike a handler, this costs no allocation per
// request, and does not change the handler that names the route in Caddy's metrics.
func (p preparer) addTo(route *caddyhttp.Route) (added bool) {
	if len(route.MatcherSets) == 0 {
		route.MatcherSets = caddyhttp.MatcherSets{nil}
	}
	for i, set := range route.MatcherSets {
		if !slices.ContainsFunc(set, func(m any) bool { other, ok := m.(preparer); return ok && other.name == p.name }) {
			route.MatcherSets[i], added = append(set, p), true
		}
	}
	return added
}

// MatchWithError implements caddyhttp.RequestMatcherWithError. It matches all requests.
func (p preparer) MatchWithError(r *http.Request) (bool, error) {
	p.prepare(r)
	return true, nil
}

// Interface guards
var _ caddyhttp.RequestMatcherWithError = preparer{}
