package gateway

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// checkConflicts finds two routes of which one could never be chosen.
func checkConflicts(routes []placed) error {
	byPath := make(map[string][]placed, len(routes))
	for _, rt := range routes {
		path := rt.PathPrefix
		if p, _ := rt.parsePattern(); p != nil {
			path = "pattern " + p.shape()
		}
		for _, other := range byPath[path] {
			if !rt.conflictsWith(other.Route) {
				continue
			}
			taken := rt.PathPrefix
			if other.PathPrefix != rt.PathPrefix {
				taken = fmt.Sprintf("%s takes the same paths as %s, which", rt.PathPrefix, other.PathPrefix)
			}
			problem := problemf(rt.at+".path_prefix",
				"%s leads to %s already: remove one of the two routes, or tell them apart by match, hosts, headers, query or methods",
				taken, quotedList(other.backendNames()))
			problem.Other = other.at + ".path_prefix"
			return problem
		}
		byPath[path] = append(byPath[path], rt)
	}
	return nil
}

func (rt *Route) conflictsWith(other *Route) bool {
	return (rt.Match == matchSegment) == (other.Match == matchSegment) &&
		rt.conditions() == other.conditions() &&
		overlap(rt.Hosts, other.Hosts, strings.EqualFold) &&
		overlap(rt.Methods, other.Methods, func(a, b string) bool { return a == b })
}

// overlap reports whether two conditions hold for the same things while neither
// is the narrower one: both are absent, or they share an element.
func overlap(a, b []string, same func(string, string) bool) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	return slices.ContainsFunc(a, func(x string) bool {
		return slices.ContainsFunc(b, func(y string) bool { return same(x, y) })
	})
}

// quotedList is for a sentence.
func quotedList(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = strconv.Quote(name)
	}
	return strings.Join(quoted, " and ")
}
