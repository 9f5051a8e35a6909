package routing

import (
	"slices"
	"strings"
)

// Conflict returns the first route that an earlier route hides, at least for some
// requests, and that earlier route. Both are nil if there is no conflict.
func Conflict(routes []*Route) (later, earlier *Route) {
	byPath := make(map[string][]*Route, len(routes))
	for _, rt := range routes {
		path := rt.Path
		if rt.Pattern != nil {
			path = "pattern " + rt.Pattern.shape()
		}
		for _, other := range byPath[path] {
			if rt.conflictsWith(other) {
				return rt, other
			}
		}
		byPath[path] = append(byPath[path], rt)
	}
	return nil, nil
}

func (rt *Route) conflictsWith(other *Route) bool {
	return rt.Segment == other.Segment &&
		rt.conditionsKey() == other.conditionsKey() &&
		overlap(rt.Hosts, other.Hosts, strings.EqualFold) &&
		overlap(rt.Methods, other.Methods, func(a, b string) bool { return a == b })
}

// overlap reports whether two conditions can match the same request with equal
// specificity. This is the case if both are empty or have a common element.
func overlap(a, b []string, same func(string, string) bool) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	return slices.ContainsFunc(a, func(x string) bool {
		return slices.ContainsFunc(b, func(y string) bool { return same(x, y) })
	})
}
