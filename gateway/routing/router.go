// Package routing finds the route of a request by path, host, method, header fields and
// query. It returns the index of the route; the caller handles the request.
package routing

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"

	"github.com/rgate/rgate/internal/query"
)

// Router finds the route of a request. It is immutable.
//
// The most specific route that matches the path is tried first. Paths are compared
// segment by segment from the left: a literal comes before a parameter, a parameter
// before a wildcard, and a wildcard before the open end of a prefix. So the longest of
// several prefixes comes first.
//
// For equal paths, these rules apply in order: `match: segment` before `match: prefix`,
// an exact host before a wildcard before no host, more header conditions before fewer,
// more query conditions before fewer, and methods before no methods. Equal routes are
// tried in the configured order.
type Router struct {
	match    Matchers
	prefixes *tree[candidates]
	patterns *patternNode // nil without patterns
	hosts    bool         // any route has a condition on the host
	queries  bool         // any route has a condition on the query
}

// candidates are the routes of one prefix or pattern. The type is small, because a
// search in a large tree is dominated by cache misses.
type candidates struct {
	only   *Route    // the only route, if it has no other conditions
	routes *[]*Route // otherwise; nil: no routes
}

// insert adds a route.
func (at *candidates) insert(route *Route) {
	var routes []*Route
	switch {
	case at.only != nil:
		routes = []*Route{at.only}
	case at.routes != nil:
		routes = *at.routes
	}
	routes = insert(routes, route)
	if len(routes) == 1 && route.specificity() == 0 {
		*at = candidates{only: route}
	} else {
		*at = candidates{routes: &routes}
	}
}

// length returns the length of the prefix.
func (at candidates) length() int {
	if at.only != nil {
		return len(at.only.Path)
	}
	return len((*at.routes)[0].Path)
}

// New returns a router for the given routes.
func New(routes []*Route, match Matchers) *Router {
	byPrefix := make(map[string]candidates, len(routes))
	texts := make(interner)
	rt := &Router{match: match}
	for _, route := range routes {
		rt.hosts = rt.hosts || len(route.Hosts) > 0
		rt.queries = rt.queries || len(route.Query) > 0
		if route.Pattern == nil {
			at := byPrefix[route.Path]
			at.insert(route)
			byPrefix[route.Path] = at
			continue
		}
		if rt.patterns == nil {
			rt.patterns = new(patternNode)
		}
		rt.patterns.add(route.Pattern, route, texts)
	}
	rt.prefixes = newTree(byPrefix)
	return rt
}

// insert inserts a route into the routes of a path, in the order of precedence.
func insert(routes []*Route, route *Route) []*Route {
	at, _ := slices.BinarySearchFunc(routes, route, func(a, b *Route) int {
		return cmp.Or(cmp.Compare(b.specificity(), a.specificity()), -1)
	})
	return slices.Insert(routes, at, route)
}

// Find returns the route that matches a request with the given path. If only the method
// does not match, it returns the allowed methods.
func (rt *Router) Find(r *http.Request, path string) (route *Route, allowed []string) {
	s := rt.search(r, path, nil)
	if s.found != nil {
		return s.found, nil
	}
	if slices.Contains(s.allowed, http.MethodGet) {
		s.allowed = append(s.allowed, http.MethodHead)
	}
	slices.Sort(s.allowed)
	return nil, slices.Compact(s.allowed)
}

// Nearest returns the first route that matches a request except for the method, or nil.
func (rt *Router) Nearest(r *http.Request, path string) *Route {
	s := rt.search(r, path, nil)
	return s.near
}

// search finds the route of a request with the given path and query parameters. If
// params is nil, the query is parsed when a route has a condition on it.
func (rt *Router) search(r *http.Request, path string, params url.Values) search {
	s := search{router: rt, request: r, path: path, params: params, next: rt.prefixes.longest(path)}
	if rt.hosts {
		s.host = hostname(r.Host)
	}
	_ = rt.patterns != nil && s.walk(rt.patterns, 1) || s.tryPrefixes(0)
	return s
}

// search is the state of the search for the route of one request.
type search struct {
	router  *Router
	request *http.Request
	path    string
	host    string
	params  url.Values // of the query; nil: not yet parsed
	next    int32      // leaf of the longest prefix that has not been tried
	found   *Route     // result
	near    *Route     // first route that matches except for the method
	allowed []string   // methods of the routes that match except for the method
}

// try tries the candidates, whose paths match the request. It reports whether one
// matches.
func (s *search) try(at candidates) bool {
	if at.only != nil {
		s.found = at.only
		return true
	}
	if at.routes == nil {
		return false
	}
	for _, route := range *at.routes {
		if !route.matchesPath(s.path) || !route.matchesHost(s.host) || !s.matchesHeaders(route) || !s.matchesQuery(route) {
			continue
		}
		if route.matchesMethod(s.request.Method) || route.Preflights && route.matchesPreflight(s.request) {
			s.found = route
			return true
		}
		if s.near == nil {
			s.near = route
		}
		s.allowed = append(s.allowed, route.Methods...)
	}
	return false
}

// tryPrefixes tries the prefixes with at least the given length, the longest first.
func (s *search) tryPrefixes(length int) bool {
	for s.next != none {
		leaf := &s.router.prefixes.leaves[s.next]
		if length > 0 && leaf.value.length() < length {
			return false
		}
		s.next = leaf.outer
		if s.try(leaf.value) {
			return true
		}
	}
	return false
}

func (s *search) matchesHeaders(route *Route) bool {
	return len(route.Headers) == 0 || s.router.match.Headers(s.request, route.Headers)
}

func (s *search) matchesQuery(route *Route) bool {
	if len(route.Query) == 0 {
		return true
	}
	if s.params == nil {
		s.params = query.Values(s.request.URL.RawQuery)
	}
	return s.router.match.Query(s.request, route.Query, s.params)
}
