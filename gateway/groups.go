package gateway

import (
	"fmt"
	"maps"
	"net/textproto"
	"slices"
	"strings"
)

// resolvedRoute is a route with the options that it inherits from its groups.
type resolvedRoute struct {
	*Route
	own    *Route   // the route without inherited options
	at     string   // JSON path
	groups []*Group // the outermost first
}

// resolvedRoutes returns the routes of the gateway and of all groups.
func (g *Gateway) resolvedRoutes() []resolvedRoute {
	top := Group{Routes: g.Routes, Groups: g.Groups}
	return top.collect(nil, "", nil)
}

// collect appends the routes of a group and of its inner groups to all.
func (g *Group) collect(all []resolvedRoute, at string, around []*Group) []resolvedRoute {
	for i, rt := range g.Routes {
		p := resolvedRoute{Route: rt, own: rt, at: fmt.Sprintf("%sroutes[%d]", at, i), groups: around}
		if rt != nil {
			p.Route = rt.within(around)
		}
		all = append(all, p)
	}
	for i, inner := range g.Groups {
		if inner != nil {
			all = inner.collect(all, fmt.Sprintf("%sgroups[%d].", at, i), append(around[:len(around):len(around)], inner))
		}
	}
	return all
}

// groupPath returns the JSON path of a group around the route. The outermost group has
// the index 0.
func (rt resolvedRoute) groupPath(index int) string {
	return strings.Join(strings.Split(rt.at, ".")[:index+1], ".")
}

// within returns a copy of the route with the options that it inherits from groups, the
// outermost first.
func (rt *Route) within(groups []*Group) *Route {
	own := *rt
	own.Headers = canonicalHeaders(own.Headers)
	for i := len(groups) - 1; i >= 0; i-- {
		g := groups[i]
		if own.PathPrefix == "" {
			own.PathPrefix = g.PathPrefix
		} else {
			own.PathPrefix = strings.TrimSuffix(g.PathPrefix, "/") + own.PathPrefix
		}
		if len(own.Hosts) == 0 {
			own.Hosts = g.Hosts
		}
		own.Headers = inherit(own.Headers, canonicalHeaders(g.Headers))
		own.Query = inherit(own.Query, g.Query)
		if own.Deprecated == nil {
			own.Deprecated = g.Deprecated
		}
	}
	return &own
}

// inherit merges the conditions of a route and its group. If both have a condition of
// the same name, the inner one is kept.
func inherit[M ~map[string][]string](inner, outer M) M {
	if len(outer) == 0 {
		return inner
	}
	both := maps.Clone(outer)
	maps.Copy(both, inner)
	return both
}

// canonicalHeaders returns the conditions with canonical field names. Values of names
// that become equal are merged.
func canonicalHeaders[M ~map[string][]string](headers M) M {
	if len(headers) == 0 {
		return nil
	}
	all := make(M, len(headers))
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		key := textproto.CanonicalMIMEHeaderKey(name)
		if values := headers[name]; all[key] == nil {
			all[key] = slices.Clone(values) // nil remains nil
		} else {
			all[key] = append(all[key], values...)
		}
	}
	return all
}
