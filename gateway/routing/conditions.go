package routing

import (
	"maps"
	"net/textproto"
	"slices"
)

// Inherit merges the conditions of a route and its group. If both have a condition of
// the same name, the inner one is kept.
func Inherit[M ~map[string][]string](inner, outer M) M {
	if len(outer) == 0 {
		return inner
	}
	both := maps.Clone(outer)
	maps.Copy(both, inner)
	return both
}

// CanonicalHeaders returns the conditions with canonical field names. Values of names
// that become equal are merged.
func CanonicalHeaders[M ~map[string][]string](headers M) M {
	if len(headers) == 0 {
		return nil
	}
	all := make(M, len(headers))
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		key := textproto.CanonicalMIMEHeaderKey(name)
		if values := headers[name]; all[key] == nil {
			all[key] = slices.Clone(values) // nil remains nil
		} else {
			all[key] = append(all[key], values...)
		}
	}
	return all
}
