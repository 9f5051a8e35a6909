// Package routing finds the route of a request by its path, host, method, header fields and
// query. It returns the number of a route; what the route does is up to the caller.
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
// Of the routes that match the path, the most specific one is tried first. They are compared
// segment by segment from the left: text comes before a parameter, a parameter before a
// wildcard, and a wildcard before the open end of a prefix. So the longest of several
// prefixes comes first. At one path, `match: segment` comes before `match: prefix`, an exact
// host before a wildcard before none, more conditions on header fields before fewer, more
// on the query before fewer, and some methods before all methods. Routes that are equal in
// all this are tried in the order given. The first route that matches is chosen.
type Router struct {
	match    Matchers
	prefixes *tree[candidates]
	patterns *patternNode // nil without patterns
	hosts    bool         // whether any route has a condition on the host
	queries  bool         // whether any route has a condition on the query
}

// candidates are the routes of one prefix or pattern. They are small, because a search in a
// large tree spends its time on cache misses.
type candidates struct {
	only   *Route    // the only one, if it has no further conditions
	routes *[]*Route // otherwise; nil if there are none
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

// New returns a router of the given routes.
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

// insert adds a route to those of one path, in the order in which they are tried.
func insert(routes []*Route, route *Route) []*Route {
	at, _ := slices.BinarySearchFunc(routes, route, func(a, b *Route) int {
		return cmp.Or(cmp.Compare(b.specificity(), a.specificity()), -1)
	})
	return slices.Insert(routes, at, route)
}

// Find returns the route that matches a request with the given path. If only the method
// prevents a match, it returns the allowed methods.
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

// Nearest returns the first route that matches a request in all but its method, or nil.
func (rt *Router) Nearest(r *http.Request, path string) *Route {
	s := rt.search(r, path, nil)
	return s.near
}

// search looks for the route of a request with the given path and query parameters. If
// params is nil, the query is parsed when a route has a condition on it.
func (rt *Router) search(r *http.Request, path string, params url.Values) search {
	s := search{router: rt, request: r, path: path, params: params, next: rt.prefixes.longest(path)}
	if rt.hosts {
		s.host = hostname(r.Host)
	}
	_ = rt.patterns != nil && s.walk(rt.patterns, 1) || s.tryPrefixes(0)
	return s
}

// search is the search for one request's route.
type search struct {
	router  *Router
	request *http.Request
	path    string
	host    string
	params  url.Values // of the query; nil until they are needed
	next    int32      // the leaf of the longest prefix that was not tried yet
	found   *Route     // the result
	near    *Route     // the first that matches in all but the method
	allowed []string   // methods of the routes that match in all but the method
}

// try looks for a route that matches the request among candidates that match its path.
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

// tryPrefixes tries the prefixes of at least the given length, the longest first.
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
