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
			return problemf(rt.at, "the route is empty: set path_prefix and backend")
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
			return problemf(path, "the group has no routes: add a route or remove the group")
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
		return problemf(at, "invalid path %q of a group: must not end with a wildcard: remove /*", path)
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
			return problemf(rt.at+".match", "match and the pattern %s of the group cannot be combined: remove match, and end the route with /* to match longer paths", g.PathPrefix)
		}
	}
	return nil
}

func (rt resolvedRoute) checkPath() error {
	at := rt.at + ".path_prefix"
	if rt.PathPrefix == "" {
		return problemf(rt.at, "path_prefix is required: use / to match every path")
	}
	if err := checkPath(at, rt.PathPrefix); err != nil {
		return err
	}
	p, err := rt.parsePattern()
	if err != nil {
		return problemf(at, "invalid path %q: %v", rt.PathPrefix, err)
	}
	if p != nil && rt.StripPrefix && !p.HasRest() {
		return problemf(rt.at+".strip_prefix", "strip_prefix requires a path_prefix that ends with /*, not %q: append /* or remove strip_prefix", rt.PathPrefix)
	}
	return nil
}

// checkPath returns an error unless path is absolute, decoded and normalized.
func checkPath(at, path string) error {
	switch {
	case path[0] != '/':
		return problemf(at, "invalid path %q: must begin with a slash: use %q", path, "/"+path)
	case strings.ContainsAny(path, "?#"):
		return problemf(at, "invalid path %q: must not contain a query or fragment", path)
	case strings.Contains(path, "%"):
		return problemf(at, "invalid path %q: must not be percent-encoded: use the decoded path", path)
	case strings.ContainsAny(path, `\;`):
		return problemf(at, "invalid path %q: must not contain backslashes or semicolons, which some backends interpret as slashes or the end of a segment", path)
	case routing.CleanPath(path) != path:
		return problemf(at, "invalid path %q: must be normalized: use %q", path, routing.CleanPath(path))
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
			return problemf(at, "invalid header field name %q: to match its absence, set %q to null", name, name[1:])
		case !isToken(name):
			return problemf(at, "invalid header field name %q: use a name such as X-API-Version", name)
		case values != nil && len(values) == 0:
			return problemf(at, `header field %s has no values: use "*" to match any value, or null to match its absence`, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rt.Query)) {
		if len(rt.Query[name]) == 0 {
			return problemf(rt.at+".query."+name, `query parameter %q has no values: use "*" to match any value`, name)
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
			return problemf(at, "invalid method %q: must be a name such as GET", method)
		}
		if upper := strings.ToUpper(method); upper != method {
			return problemf(at, "invalid method %q: must be in upper case: use %s", method, upper)
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
		return fmt.Errorf("invalid host %q: must be a name such as api.example.com", host)
	case strings.Contains(name, "*"):
		return fmt.Errorf("invalid host %q: a wildcard must be the first label, as in *.example.com", host)
	case strings.ContainsAny(name, "/ \t?#@") || strings.Count(name, ":") == 1:
		return fmt.Errorf("invalid host %q: must be a name without scheme, port and path", host)
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
		return problemf(rt.at+".sticky_key", "invalid sticky_key %q: must have a placeholder, such as {http.request.cookie.session}", rt.StickyKey)
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
			case use[1] == "*":
				remedy = ": end path_prefix with /*"
			case len(known) == 0:
				remedy = ": add a segment /:" + use[1]
			case remedy == "":
				remedy = ": use " + strings.Join(known, ", ")
			}
			return problemf(at, "unknown path parameter %s of %s%s", use[0], rt.PathPrefix, remedy)
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
		return problemf(rt.at+".backends", "backend and backends of route %s cannot be combined: remove one of them", rt.PathPrefix)
	case rt.Backend == "" && len(rt.Backends) == 0:
		return problemf(rt.at, "route %s requires backend: set it to the name of a backend", rt.PathPrefix)
	case rt.StickyKey != "" && len(rt.Backends) == 0:
		return problemf(rt.at+".sticky_key", "sticky_key of route %s requires backends: set backends, or use lb_policy of the backend to choose among its containers", rt.PathPrefix)
	case rt.Backend != "" && !slices.Contains(known, rt.Backend):
		return problemf(rt.at+".backend", "unknown backend %q%s", rt.Backend, suggestOrList(rt.Backend, known))
	}
	total := 0
	var seen []string
	for i, s := range rt.Backends {
		at := fmt.Sprintf("%s.backends[%d]", rt.at, i)
		switch {
		case s == nil || s.Name == "":
			return problemf(at, "name is required: set it to the name of a backend")
		case !slices.Contains(known, s.Name):
			return problemf(at+".name", "unknown backend %q%s", s.Name, suggestOrList(s.Name, known))
		case slices.Contains(seen, s.Name):
			return problemf(at+".name", "duplicate backend %q: remove one of the two", s.Name)
		case s.Weight < 0 || s.Weight > maxWeight:
			return problemf(at+".weight", "invalid weight %d: must be 0 to %d", s.Weight, maxWeight)
		}
		seen, total = append(seen, s.Name), total+s.Weight
	}
	if len(rt.Backends) > 0 && total == 0 {
		return problemf(rt.at+".backends", "invalid weights: at least one must be above 0")
	}
	return nil
}

// checkConflicts reports the first route that an earlier route hides, at least for some
// requests.
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
		taken = fmt.Sprintf("%s matches the same paths as %s, which", rt.PathPrefix, other.PathPrefix)
	}
	problem := problemf(rt.at+".path_prefix",
		"%s is already routed to %s: remove one of the two routes, or distinguish them by match, hosts, headers, query or methods",
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
