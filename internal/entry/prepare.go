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

// preparer is what is done to each request of a site before anything in it.
type preparer struct {
	name    string // what is done once only
	prepare func(*http.Request)
}

// Prepare makes prepare run for each request of the site that is being provisioned before
// any handler of the site, unless something of that name does already. A site is the
// top-level route that ends the request (`terminal`), such as that of a host name in a
// Caddyfile. If it does not, all of the server is one site. Error routes belong to all
// sites of their server. Prepare returns what to call the site in a warning if it may now
// touch requests that the module which is being provisioned does not see, and does so for
// the first time.
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

// appended returns a list of preparers with one more, unless it has it.
func appended(all []preparer, p preparer) (more []preparer, added bool) {
	if slices.ContainsFunc(all, func(other preparer) bool { return other.name == p.name }) {
		return all, false
	}
	return append(all, p), true
}

// addTo makes the preparer the last of a route's matchers, so that it is called for exactly
// the requests that the route takes. Unlike a handler, it costs no allocation for a
// request, and leaves the handler after which Caddy's metrics name the route.
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
