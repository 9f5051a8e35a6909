package routing

import (
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Route holds the conditions of one route.
type Route struct {
	// The prefix of paths, or the text of a pattern.
	Path string

	// The pattern. Nil: Path is a prefix.
	Pattern Pattern

	// Whether the prefix must end at the end of a segment.
	Segment bool

	// Methods and hosts, of which one must match, and conditions on header fields and query
	// parameters, which all must hold. If empty, they match every request. A condition
	// without values (nil) on a header field matches requests without the field.
	Hosts, Methods []string
	Headers, Query map[string][]string

	// Whether a CORS preflight matches if the request that it announces does.
	Preflights bool

	// Whether the fixed part of the path is removed for the backend.
	StripPrefix bool

	// The number of the route, for the caller.
	Index int
}

// Matchers evaluate conditions whose names and values may contain placeholders.
type Matchers struct {
	Headers func(r *http.Request, want map[string][]string) bool
	Query   func(r *http.Request, want map[string][]string, params url.Values) bool
}

// specificity returns the rank of the route among those of its path. The highest is tried
// first.
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

// matchesPath reports whether the route matches a path that begins with its prefix or that
// its pattern matches.
func (rt *Route) matchesPath(path string) bool {
	n := len(rt.Path)
	return !rt.Segment || len(path) == n || path[n] == '/' || path[n-1] == '/'
}

func (rt *Route) matchesMethod(method string) bool {
	return len(rt.Methods) == 0 || slices.Contains(rt.Methods, method) ||
		method == http.MethodHead && slices.Contains(rt.Methods, http.MethodGet)
}

// matchesPreflight reports whether a request is a preflight for a method that the route
// matches. The route's CORS policy responds to it.
func (rt *Route) matchesPreflight(r *http.Request) bool {
	method := r.Header["Access-Control-Request-Method"]
	return r.Method == http.MethodOptions && len(method) == 1 && r.Header["Origin"] != nil && rt.matchesMethod(method[0])
}

func (rt *Route) matchesHost(host string) bool {
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

// hostname returns the value of a Host field without port, brackets or trailing dot.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.TrimSuffix(strings.Trim(host, "[]"), ".")
}

// conditionsKey returns a text that is equal for routes with equal conditions on header
// fields and query parameters, whatever the order of the values.
func (rt *Route) conditionsKey() string {
	sorted := func(all map[string][]string) map[string][]string {
		all = maps.Clone(all)
		for name, values := range all {
			all[name] = slices.Clone(values)
			slices.Sort(all[name])
		}
		return all
	}
	text, _ := json.Marshal([]any{sorted(rt.Headers), sorted(rt.Query)}) // maps are encoded in the order of their keys
	return string(text)
}

// String returns the conditions in the form in which statistics and logs name a route.
func (rt *Route) String() string {
	var parts []string
	if len(rt.Methods) > 0 {
		parts = append(parts, strings.Join(rt.Methods, ","))
	}
	path := strings.Join(rt.Hosts, ",") + rt.Path
	if query := listConditions(rt.Query); len(query) > 0 {
		path += "?" + strings.Join(query, "&")
	}
	return strings.Join(append(append(parts, path), listConditions(rt.Headers)...), " ")
}

// listConditions returns conditions as name=value, and those of absence as !name.
func listConditions(all map[string][]string) (list []string) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name] == nil {
			list = append(list, "!"+name)
		} else {
			list = append(list, name+"="+strings.Join(all[name], ","))
		}
	}
	return list
}
