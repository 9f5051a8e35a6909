package gateway

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/gateway/routing"
)

// newMatcher returns the conditions of the route for the router. The caller sets the
// index.
func (rt *Route) newMatcher() (*routing.Route, error) {
	p, err := rt.parsePattern()
	if err != nil {
		return nil, err
	}
	return &routing.Route{
		Path: rt.PathPrefix, Pattern: p, Segment: rt.Match == matchSegment, StripPrefix: rt.StripPrefix,
		Hosts: rt.Hosts, Methods: rt.Methods, Headers: rt.Headers, Query: rt.Query,
	}, nil
}

// parsePattern returns the route's pattern, or nil if path_prefix is a prefix.
func (rt *Route) parsePattern() (routing.Pattern, error) {
	if rt.Match != "" {
		return nil, nil
	}
	return routing.ParsePattern(rt.PathPrefix)
}

// label returns the name of the route in statistics and logs.
func (rt *Route) label() string {
	if rt.Name != "" {
		return rt.Name
	}
	matcher := routing.Route{Path: rt.PathPrefix, Hosts: rt.Hosts, Methods: rt.Methods, Headers: rt.Headers, Query: rt.Query}
	return matcher.String()
}

// conditionMatchers evaluates the header and query conditions of routes.
var conditionMatchers = routing.Matchers{Headers: matchHeaders, Query: matchQuery}

func matchHeaders(r *http.Request, want map[string][]string) bool {
	ok, err := caddyhttp.MatchHeader(want).MatchWithError(r)
	return ok && err == nil
}

// matchQuery reports whether each parameter in want has one of its values. Unlike
// Caddy's matcher, it accepts queries that cannot be decoded completely.
func matchQuery(r *http.Request, want map[string][]string, params url.Values) bool {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return false
	}
	for name, accepted := range want {
		values, ok := params[repl.ReplaceAll(name, "")]
		if !ok || !slices.ContainsFunc(accepted, func(value string) bool {
			value = repl.ReplaceAll(value, "")
			return value == "*" || slices.Contains(values, value)
		}) {
			return false
		}
	}
	return true
}
