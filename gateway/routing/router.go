// Package routing finds the route of a request. It knows conditions alone: what a route
// does is for the owner of the router.
package routing

import (
	"cmp"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/rgate/rgate/internal/query"
)

// Route is the conditions of one route.
type Route struct {
	// The prefix of paths, or the text of a pattern.
	Path string

	// Nil: Path is a prefix.
	Pattern Pattern

	// Whether the prefix ends only at the end of a segment.
	Segment bool

	// Empty lists and maps match every request. A nil list of values of a header field
	// matches requests without the field.
	Hosts, Methods []string
	Headers, Query map[string][]string

	// Whether a preflight of CORS matches if the request that it is for does.
	Preflights bool

	// Whether the part of the path that is fixed is removed for the backend.
	StripPrefix bool

	// The number of the route, for the owner of the router.
	Index int
}

// Matchers evaluate conditions whose names and values may contain placeholders.
type Matchers struct {
	Headers func(r *http.Request, want map[string][]string) bool
	Query   func(r *http.Request, want map[string][]string, params url.Values) bool
}

// Router finds the route of a request. It is immutable.
//
// Of the routes that take the path, the one is tried first that says most about
// it: they are compared segment by segment from the left, where text beats a
// parameter, a parameter a wildcard, and a wildcard the open end of a prefix. So
// the longest of several prefixes is first. At one path, `match: segment` comes
// before `match: prefix`, an exact host before a wildcard before none, more
// conditions on headers before fewer, more on the query before fewer, and some
// methods before all of them. Of routes that are equal in all this, the one that
// stands first in the configuration comes first, those in groups after the others.
// The first route that takes the request gets it.
type Router struct {
	match    Matchers
	prefixes *tree[place]
	patterns *patternNode // nil: there are none
	hosts    bool         // whether any route looks at the host
	queries  bool         // whether any route looks at the query
}

// place is the routes of one prefix or pattern. It is small, for in a large tree the wait for
// memory is what a search consists of.
type place struct {
	only   *Route    // if it is the only one, and has no further conditions
	routes *[]*Route // if not; nil if there are none
}

// insert puts a route among those of the place.
func (at *place) insert(route *Route) {
	var routes []*Route
	switch {
	case at.only != nil:
		routes = []*Route{at.only}
	case at.routes != nil:
		routes = *at.routes
	}
	routes = insert(routes, route)
	if len(routes) == 1 && route.specificity() == 0 {
		*at = place{only: route}
	} else {
		*at = place{routes: &routes}
	}
}

// length is that of the prefix.
func (at place) length() int {
	if at.only != nil {
		return len(at.only.Path)
	}
	return len((*at.routes)[0].Path)
}

func New(routes []*Route, match Matchers) *Router {
	byPrefix := make(map[string]place, len(routes))
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

// insert puts a route among those of one path, in the order in which to try them.
func insert(routes []*Route, route *Route) []*Route {
	at, _ := slices.BinarySearchFunc(routes, route, func(a, b *Route) int {
		return cmp.Or(cmp.Compare(b.specificity(), a.specificity()), -1)
	})
	return slices.Insert(routes, at, route)
}

// specificity ranks the routes of one path: the higher is tried first.
func (rt *Route) specificity() (rank int) {
	switch {
	case len(rt.Hosts) == 0:
	case slices.ContainsFunc(rt.Hosts, isWildcard):
		rank = 1
	default:
		rank = 2
	}
	if rt.Segment {
		rank += 4
	}
	const most = 1<<8 - 1
	rank = rank<<8 + min(len(rt.Headers), most)
	rank = rank<<8 + min(len(rt.Query), most)
	rank <<= 1
	if len(rt.Methods) > 0 {
		rank++
	}
	return rank
}

// Find returns the route that takes the request if its path is this one. If there
// is none for the sole reason of its method, Find returns the methods that would
// be taken.
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

// Nearest returns the route that comes first among those that take a request but for its
// method.
func (rt *Router) Nearest(r *http.Request, path string) *Route {
	s := rt.search(r, path, nil)
	return s.near
}

// search looks for the route of a request whose path and query are read in these ways.
// Without parameters, the query is read where a route asks for it.
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
	params  url.Values // of the query; nil until a route looks at it
	next    int32      // the leaf of the longest prefix that was not tried
	found   *Route     // the result
	near    *Route     // the first that took all but the method
	allowed []string   // methods of the routes that took all but the method
}

// try looks for a route that takes the request among those that take its path.
func (s *search) try(at place) bool {
	if at.only != nil {
		s.found = at.only
		return true
	}
	if at.routes == nil {
		return false
	}
	for _, route := range *at.routes {
		if !route.takesPath(s.path) || !route.takesHost(s.host) || !s.takesHeaders(route) || !s.takesQuery(route) {
			continue
		}
		if route.takesMethod(s.request.Method) || route.Preflights && route.takesPreflight(s.request) {
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

// tryPrefixes tries the prefixes of at least this length, the longest first.
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

// takesPath reports whether the route takes a path that begins with its prefix,
// or that its pattern takes.
func (rt *Route) takesPath(path string) bool {
	n := len(rt.Path)
	return !rt.Segment || len(path) == n || path[n] == '/' || path[n-1] == '/'
}

func (rt *Route) takesMethod(method string) bool {
	return len(rt.Methods) == 0 || slices.Contains(rt.Methods, method) ||
		method == http.MethodHead && slices.Contains(rt.Methods, http.MethodGet)
}

// takesPreflight reports whether a request asks, for a browser, if the route would
// take a request of some method. The route's own policy answers that.
func (rt *Route) takesPreflight(r *http.Request) bool {
	method := r.Header["Access-Control-Request-Method"]
	return r.Method == http.MethodOptions && len(method) == 1 && r.Header["Origin"] != nil && rt.takesMethod(method[0])
}

func (s *search) takesHeaders(route *Route) bool {
	return len(route.Headers) == 0 || s.router.match.Headers(s.request, route.Headers)
}

// takesQuery reports whether the route's conditions on the query hold.
func (s *search) takesQuery(route *Route) bool {
	if len(route.Query) == 0 {
		return true
	}
	if s.params == nil {
		s.params = query.Values(s.request.URL.RawQuery)
	}
	return s.router.match.Query(s.request, route.Query, s.params)
}

func (rt *Route) takesHost(host string) bool {
	if len(rt.Hosts) == 0 {
		return true
	}
	for _, pattern := range rt.Hosts {
		if strings.EqualFold(pattern, host) {
			return true
		}
		if isWildcard(pattern) {
			if _, domain, ok := strings.Cut(host, "."); ok && strings.EqualFold(pattern[2:], domain) {
				return true
			}
		}
	}
	return false
}

func isWildcard(host string) bool { return strings.HasPrefix(host, "*.") }

// hostname returns a Host header's value without port, brackets or trailing dot.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.TrimSuffix(strings.Trim(host, "[]"), ".")
}
