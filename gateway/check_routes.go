package gateway

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rgate/rgate/gateway/routing"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/placeholder"
)

const (
	matchPrefix  = "prefix"
	matchSegment = "segment"

	maxWeight = 1_000_000
)

func (g *Gateway) checkRoutes(backends []string) error {
	if err := checkGroups(g.Groups, ""); err != nil {
		return err
	}
	routes := g.resolvedRoutes()
	for _, rt := range routes {
		if rt.Route == nil {
			return problemf(rt.at, "is empty: give it a path_prefix and a backend")
		}
		own := resolvedRoute{Route: rt.own, at: rt.at} // the groups are checked separately
		for _, check := range []func() error{rt.checkPlace, rt.checkPath, own.checkConditions, rt.checkParams} {
			if err := check(); err != nil {
				return err
			}
		}
		if err := rt.Timeouts.check(rt.at + ".timeouts"); err != nil {
			return err
		}
		if err := rt.checkBackends(backends); err != nil {
			return err
		}
	}
	return checkConflicts(routes)
}

func checkGroups(groups []*Group, at string) error {
	for i, g := range groups {
		path := fmt.Sprintf("%sgroups[%d]", at, i)
		if g == nil || len(g.Routes)+len(g.Groups) == 0 {
			return problemf(path, "the group has no routes: add some, or remove it")
		}
		if g.PathPrefix != "" {
			if err := checkGroupPath(path+".path_prefix", g.PathPrefix); err != nil {
				return err
			}
		}
		own := resolvedRoute{Route: &Route{Hosts: g.Hosts, Headers: g.Headers, Query: g.Query, Deprecated: g.Deprecated}, at: path}
		if err := own.checkConditions(); err != nil {
			return err
		}
		if err := checkGroups(g.Groups, path+"."); err != nil {
			return err
		}
	}
	return nil
}

func checkGroupPath(at, path string) error {
	if err := checkPath(at, path); err != nil {
		return err
	}
	if strings.HasSuffix(path, "/*") {
		return problemf(at, "%q ends in a wildcard, but routes go on after it: leave /* out", path)
	}
	if _, err := routing.ParsePattern(path); err != nil {
		return problemf(at, "invalid path %q: %v", path, err)
	}
	return nil
}

// checkPlace checks the route's own path prefix and its match type.
func (rt resolvedRoute) checkPlace() error {
	if own := rt.own.PathPrefix; own != "" && own[0] != '/' {
		return checkPath(rt.at+".path_prefix", own)
	}
	if rt.Match == "" {
		return nil
	}
	if rt.Match != matchPrefix && rt.Match != matchSegment {
		return problemf(rt.at+".match", "unknown match %q%s: use %s or %s",
			rt.Match, options.Suggest(rt.Match, []string{matchPrefix, matchSegment}), matchPrefix, matchSegment)
	}
	for _, g := range rt.groups {
		if p, _ := routing.ParsePattern("/" + strings.Trim(g.PathPrefix, "/")); p != nil {
			return problemf(rt.at+".match", "the route is in a group with the pattern %s, and patterns take whole paths: leave match out, and end the route with /* to take what follows", g.PathPrefix)
		}
	}
	return nil
}

func (rt resolvedRoute) checkPath() error {
	at := rt.at + ".path_prefix"
	if rt.PathPrefix == "" {
		return problemf(rt.at, "the route has no path_prefix: set it, to / for every path")
	}
	if err := checkPath(at, rt.PathPrefix); err != nil {
		return err
	}
	p, err := rt.parsePattern()
	if err != nil {
		return problemf(at, "invalid path %q: %v", rt.PathPrefix, err)
	}
	if p != nil && rt.StripPrefix && !p.HasRest() {
		return problemf(rt.at+".strip_prefix", "%q takes whole paths, of which nothing would be left: end it with /*", rt.PathPrefix)
	}
	return nil
}

// checkPath returns an error unless path is absolute, decoded and normalized.
func checkPath(at, path string) error {
	switch {
	case path[0] != '/':
		return problemf(at, "%q does not begin with a slash: write %q", path, "/"+path)
	case strings.ContainsAny(path, "?#"):
		return problemf(at, "%q has a query or fragment: give the path alone", path)
	case strings.Contains(path, "%"):
		return problemf(at, "%q is percent-encoded: write the characters themselves, for the decoded path is compared", path)
	case strings.ContainsAny(path, `\;`):
		return problemf(at, "%q has a backslash or semicolon, which some backends take for a slash or the end of a segment: leave it out", path)
	case routing.CleanPath(path) != path:
		return problemf(at, "%q is not how backends read it: write %q", path, routing.CleanPath(path))
	}
	return nil
}

// checkConditions checks the conditions on methods, hosts, headers and query.
func (rt resolvedRoute) checkConditions() error {
	if err := rt.checkNames(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(rt.Headers)) {
		at, values := rt.at+".headers."+name, rt.Headers[name]
		switch {
		case strings.HasPrefix(name, "!"):
			return problemf(at, "%q is not a header field: for one that must be absent, give %q the value null", name, name[1:])
		case !isToken(name):
			return problemf(at, "%q is not a header field: use a name like X-API-Version", name)
		case values != nil && len(values) == 0:
			return problemf(at, `header field %s has no values: use "*" for any, or null if it must be absent`, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rt.Query)) {
		if len(rt.Query[name]) == 0 {
			return problemf(rt.at+".query."+name, `query parameter %q has no values: use "*" for any`, name)
		}
	}
	if rt.Deprecated == nil {
		return nil
	}
	if _, problem := rt.Deprecated.header(); problem != nil {
		return problemf(rt.at+".deprecated."+problem.Path, "%s", problem.Message)
	}
	return nil
}

// checkNames checks the methods and hosts.
func (rt resolvedRoute) checkNames() error {
	for i, method := range rt.Methods {
		at := fmt.Sprintf("%s.methods[%d]", rt.at, i)
		if !isToken(method) {
			return problemf(at, "%q is not a method: use names like GET and POST", method)
		}
		if upper := strings.ToUpper(method); upper != method {
			return problemf(at, "methods are in upper case: write %s for %q", upper, method)
		}
	}
	for i, host := range rt.Hosts {
		if err := checkHost(host); err != nil {
			return problemf(fmt.Sprintf("%s.hosts[%d]", rt.at, i), "%v", err)
		}
	}
	return nil
}

func checkHost(host string) error {
	name := strings.TrimPrefix(host, "*.")
	switch {
	case name == "":
		return fmt.Errorf("%q is not a host: use a name like api.example.com", host)
	case strings.Contains(name, "*"):
		return fmt.Errorf("%q has a wildcard in the wrong place: only a leading *. stands for one label", host)
	case strings.ContainsAny(name, "/ \t?#@") || strings.Count(name, ":") == 1:
		return fmt.Errorf("%q is not a host: give its name alone, without scheme, port or path", host)
	}
	return nil
}

// isToken reports whether s is a token (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
	})
}

var (
	placeholderPattern = regexp.MustCompile(`\{[^{}\s]+\}`)
	paramUse           = regexp.MustCompile(`\{http\.rgate\.param\.([^{}]*)\}`)
)

// checkParams checks sticky_key, and that the path pattern defines all parameters that the
// route uses.
func (rt resolvedRoute) checkParams() error {
	if rt.StickyKey != "" && !placeholderPattern.MatchString(rt.StickyKey) {
		return problemf(rt.at+".sticky_key", "%q is the same for all requests: use a placeholder such as {http.request.cookie.session}", rt.StickyKey)
	}
	if err := placeholder.CheckKey("sticky_key", rt.StickyKey); err != nil {
		return problemf(rt.at+".sticky_key", "%v", err)
	}
	p, _ := rt.parsePattern()
	known := p.Names()
	check := func(at, text string) error {
		for _, use := range paramUse.FindAllStringSubmatch(text, -1) {
			if slices.Contains(known, use[1]) {
				continue
			}
			remedy := options.Suggest(use[1], known)
			switch {
			case len(known) == 0:
				remedy = ": it has none, so add a segment /:" + use[1]
			case remedy == "":
				remedy = ": it has " + strings.Join(known, ", ")
			}
			return problemf(at, "%s is not a parameter of the path %s%s", use[0], rt.PathPrefix, remedy)
		}
		return nil
	}
	if err := check(rt.at+".sticky_key", rt.StickyKey); err != nil {
		return err
	}
	for i, raw := range rt.HandlersRaw {
		if err := check(fmt.Sprintf("%s.handle[%d]", rt.at, i), string(raw)); err != nil {
			return err
		}
	}
	return nil
}

func (rt resolvedRoute) checkBackends(known []string) error {
	switch {
	case rt.Backend != "" && len(rt.Backends) > 0:
		return problemf(rt.at+".backends", "route %s has both backend and backends: use one of them", rt.PathPrefix)
	case rt.Backend == "" && len(rt.Backends) == 0:
		return problemf(rt.at, "route %s has no backend: set backend to one of the backends' names", rt.PathPrefix)
	case rt.StickyKey != "" && len(rt.Backends) == 0:
		return problemf(rt.at+".sticky_key", "route %s has one backend only: sticky_key chooses among several; for one of a backend's containers, use its lb_policy", rt.PathPrefix)
	case rt.Backend != "" && !slices.Contains(known, rt.Backend):
		return problemf(rt.at+".backend", "backend %q is not defined%s", rt.Backend, suggestOrList(rt.Backend, known))
	}
	total := 0
	var seen []string
	for i, s := range rt.Backends {
		at := fmt.Sprintf("%s.backends[%d]", rt.at, i)
		switch {
		case s == nil || s.Name == "":
			return problemf(at, "the share has no name: set name to one of the backends' names")
		case !slices.Contains(known, s.Name):
			return problemf(at+".name", "backend %q is not defined%s", s.Name, suggestOrList(s.Name, known))
		case slices.Contains(seen, s.Name):
			return problemf(at+".name", "backend %q is named twice: give it one weight", s.Name)
		case s.Weight < 0 || s.Weight > maxWeight:
			return problemf(at+".weight", "weight %d is out of range: use 0 to %d", s.Weight, maxWeight)
		}
		seen, total = append(seen, s.Name), total+s.Weight
	}
	if len(rt.Backends) > 0 && total == 0 {
		return problemf(rt.at+".backends", "no backend has a weight: give at least one of them a weight above 0")
	}
	return nil
}

// checkConflicts reports the first route that an earlier route hides completely.
func checkConflicts(routes []resolvedRoute) error {
	matchers := make([]*routing.Route, len(routes))
	for i, rt := range routes {
		var err error
		if matchers[i], err = rt.newMatcher(); err != nil {
			return problemf(rt.at+".path_prefix", "%v", err)
		}
		matchers[i].Index = i
	}
	later, earlier := routing.Conflict(matchers)
	if later == nil {
		return nil
	}
	rt, other := routes[later.Index], routes[earlier.Index]
	taken := rt.PathPrefix
	if other.PathPrefix != rt.PathPrefix {
		taken = fmt.Sprintf("%s takes the same paths as %s, which", rt.PathPrefix, other.PathPrefix)
	}
	problem := problemf(rt.at+".path_prefix",
		"%s leads to %s already: remove one of the two routes, or distinguish them by match, hosts, headers, query or methods",
		taken, quotedList(other.backendNames()))
	problem.Other = other.at + ".path_prefix"
	return problem
}

// quotedList quotes the names and joins them.
func quotedList(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = strconv.Quote(name)
	}
	return strings.Join(quoted, " and ")
}

// suggestOrList returns a suggestion for an unknown backend, or the list of known ones.
func suggestOrList(word string, known []string) string {
	if suggestion := options.Suggest(word, known); suggestion != "" {
		return suggestion
	}
	if len(known) == 0 {
		return ": define it under backends"
	}
	const most = 10
	list := strings.Join(known[:min(len(known), most)], ", ")
	if len(known) > most {
		list += ", …"
	}
	return ": use one of " + list + ", or define it"
}
