package gateway

import (
	"cmp"
	"net"
	"net/http"
	"slices"
	"strings"
)

// router finds the route of a request. It is immutable.
//
// The routes whose prefix the path begins with are tried from the longest prefix
// to the shortest; at one prefix `match: segment` comes before `match: prefix`,
// an exact host before a wildcard before none, and a list of methods before
// none. The first route that takes the request gets it.
type router struct {
	tree  *tree[[]*Route]
	hosts bool // whether any route looks at the host
}

func newRouter(routes []*Route) *router {
	byPrefix := make(map[string][]*Route, len(routes))
	rt := new(router)
	for _, route := range routes {
		byPrefix[route.PathPrefix] = append(byPrefix[route.PathPrefix], route)
		rt.hosts = rt.hosts || len(route.Hosts) > 0
	}
	for _, same := range byPrefix {
		slices.SortStableFunc(same, func(a, b *Route) int {
			return cmp.Compare(b.specificity(), a.specificity())
		})
	}
	rt.tree = newTree(byPrefix)
	return rt
}

// specificity ranks the routes of one prefix: the higher is tried first.
func (rt *Route) specificity() (rank int) {
	if rt.Match == matchSegment {
		rank += 8
	}
	switch {
	case len(rt.Hosts) == 0:
	case slices.ContainsFunc(rt.Hosts, isWildcard):
		rank += 2
	default:
		rank += 4
	}
	if len(rt.Methods) > 0 {
		rank++
	}
	return rank
}

// find returns the route that takes the request. If there is none for the sole
// reason of its method, find returns the methods that would be taken.
func (rt *router) find(r *http.Request) (route *Route, allowed []string) {
	path := r.URL.Path
	var host string
	if rt.hosts {
		host = hostname(r.Host)
	}
	for i := rt.tree.longest(path); i != none; i = rt.tree.leaves[i].outer {
		for _, route := range rt.tree.leaves[i].value {
			if !route.takesPath(path) || !route.takesHost(host) {
				continue
			}
			if route.takesMethod(r.Method) {
				return route, nil
			}
			allowed = append(allowed, route.Methods...)
		}
	}
	if slices.Contains(allowed, http.MethodGet) {
		allowed = append(allowed, http.MethodHead)
	}
	slices.Sort(allowed)
	return nil, slices.Compact(allowed)
}

// takesPath reports whether the route takes a path that begins with its prefix.
func (rt *Route) takesPath(path string) bool {
	n := len(rt.PathPrefix)
	return rt.Match != matchSegment || len(path) == n || path[n] == '/' || path[n-1] == '/'
}

func (rt *Route) takesMethod(method string) bool {
	return len(rt.Methods) == 0 || slices.Contains(rt.Methods, method) ||
		method == http.MethodHead && slices.Contains(rt.Methods, http.MethodGet)
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
