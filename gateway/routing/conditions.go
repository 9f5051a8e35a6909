package routing

import (
	"maps"
	"net/textproto"
	"slices"
)

// Inherit returns the conditions of a route and its group. The inner one takes precedence
// where both have the same name.
func Inherit[M ~map[string][]string](inner, outer M) M {
	if len(outer) == 0 {
		return inner
	}
	both := maps.Clone(outer)
	maps.Copy(both, inner)
	return both
}

// CanonicalHeaders returns conditions on header fields under the canonical names of the
// fields. The values of names that become equal are combined.
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
