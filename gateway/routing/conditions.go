package routing

import (
	"encoding/json"
	"maps"
	"net/textproto"
	"slices"
	"strings"
)

// Inherit returns the conditions of both; where both have one, the inner.
func Inherit[M ~map[string][]string](inner, outer M) M {
	if len(outer) == 0 {
		return inner
	}
	both := maps.Clone(outer)
	maps.Copy(both, inner)
	return both
}

// Canonical returns conditions on headers under the names that net/http gives to
// header fields, so that one is not taken for two. Where it is there twice, all of
// its values are allowed.
func Canonical[M ~map[string][]string](headers M) M {
	if len(headers) == 0 {
		return nil
	}
	all := make(M, len(headers))
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		key := textproto.CanonicalMIMEHeaderKey(name)
		if values := headers[name]; all[key] == nil {
			all[key] = slices.Clone(values) // null remains null
		} else {
			all[key] = append(all[key], values...)
		}
	}
	return all
}

// conditions is equal for routes whose conditions on headers and the query are,
// whatever the order of their values.
func (rt *Route) conditions() string {
	sorted := func(all map[string][]string) map[string][]string {
		all = maps.Clone(all)
		for name, values := range all {
			all[name] = slices.Clone(values)
			slices.Sort(all[name])
		}
		return all
	}
	text, _ := json.Marshal([]any{sorted(rt.Headers), sorted(rt.Query)}) // maps are written in the order of their keys
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

// listConditions writes conditions as name=value, those of absence as !name.
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
