package gateway

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/caddyserver/caddy/v2"
)

// matchQuery reports whether each parameter that is asked for has one of its values.
// It is Caddy's matcher with another reading of the query: that one takes a query for
// empty if any part of it cannot be decoded.
func matchQuery(r *http.Request, asked map[string][]string, params url.Values) bool {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return false
	}
	for name, wanted := range asked {
		values, ok := params[repl.ReplaceAll(name, "")]
		if !ok || !slices.ContainsFunc(wanted, func(value string) bool {
			value = repl.ReplaceAll(value, "")
			return value == "*" || slices.Contains(values, value)
		}) {
			return false
		}
	}
	return true
}
