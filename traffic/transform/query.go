package transform

import (
	"net/url"
	"slices"
	"strings"

	"github.com/rgate/rgate/internal/query"
)

// queryParam is a query parameter: its decoded name and its raw text.
type queryParam struct{ name, raw string }

// parseQuery splits a raw query into its parameters.
func parseQuery(raw string) (params []queryParam) {
	if raw == "" {
		return nil
	}
	for p := range query.All(raw) {
		params = append(params, queryParam{p.Name, p.Raw})
	}
	return params
}

func joinQuery(params []queryParam) string {
	var b strings.Builder
	for i, p := range params {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p.raw)
	}
	return b.String()
}

func newParam(name, value string) queryParam {
	return queryParam{name, url.QueryEscape(name) + "=" + url.QueryEscape(value)}
}

func deleteParams(params []queryParam, name string) []queryParam {
	return slices.DeleteFunc(params, func(p queryParam) bool { return p.name == name })
}

// renameParams renames parameters in place and removes other parameters with the new
// name.
func renameParams(params []queryParam, from, to string) []queryParam {
	if !slices.ContainsFunc(params, func(p queryParam) bool { return p.name == from }) {
		return params
	}
	params = deleteParams(params, to)
	for i, p := range params {
		if p.name == from {
			key, _, _ := strings.Cut(p.raw, "=")
			params[i] = queryParam{to, url.QueryEscape(to) + p.raw[len(key):]}
		}
	}
	return params
}
