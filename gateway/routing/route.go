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

// Route holds the conditions of a route.
type Route struct {
	// The path prefix, or the text of the pattern.
	Path string

	// The pattern, or nil if Path is a prefix.
	Pattern Pattern

	// Whether the prefix matches whole segments only.
	Segment bool

	// The conditions on hosts, methods, header fields and query parameters. Empty
	// conditions match every request. One host and one method must match, and all
	// conditions on fields and parameters. A nil list requires that the header field is
	// absent.
	Hosts, Methods []string
	Headers, Query map[string][]string

	// Whether a CORS preflight matches if the announced request would match.
	Preflights bool

	// Whether the fixed part of the path is removed before the request is forwarded.
	StripPrefix bool

	// The caller's index of the route.
	Index int
}

// Matchers evaluate conditions whose names and values may contain placeholders.
type Matchers struct {
	Headers func(r *http.Request, want map[string][]string) bool
	Query   func(r *http.Request, want map[string][]string, params url.Values) bool
}

// specificity returns the rank of the route among routes with the same path. The
// highest rank is tried first.
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

// matchesPath reports whether a path satisfies Segment: the prefix must end at the end of
// a segment. The path must begin with the prefix or match the pattern.
func (rt *Route) matchesPath(path string) bool {
	n := len(rt.Path)
	return !rt.Segment || len(path) == n || path[n] == '/' || path[n-1] == '/'
}

func (rt *Route) matchesMethod(method string) bool {
	return len(rt.Methods) == 0 || slices.Contains(rt.Methods, method) ||
		method == http.MethodHead && slices.Contains(rt.Methods, http.MethodGet)
}

// matchesPreflight reports whether a request is a CORS preflight for a method of the
// route. The route's CORS policy responds to it.
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

// hostname returns a Host value without port, brackets and trailing dot.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.TrimSuffix(strings.Trim(host, "[]"), ".")
}

// conditionsKey returns a string that is equal for routes with equal conditions on
// header fields and query parameters, regardless of the order of values.
func (rt *Route) conditionsKey() string {
	sorted := func(all map[string][]string) map[string][]string {
		all = maps.Clone(all)
		for name, values := range all {
			all[name] = slices.Clone(values)
			slices.Sort(all[name])
		}
		return all
	}
	text, _ := json.Marshal([]any{sorted(rt.Headers), sorted(rt.Query)}) // JSON sorts the keys of maps
	return string(text)
}

// String returns the conditions in the form used in statistics and logs.
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

// listConditions formats conditions as name=value, and absent fields as !name.
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
