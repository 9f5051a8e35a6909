package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// Problem is something wrong with the configuration of a gateway.
type Problem struct {
	// Where, as a path in the JSON configuration: `routes[2].backend`.
	Path string

	// What is wrong, and what would be right.
	Message string
}

func (p *Problem) Error() string {
	if p.Path == "" {
		return p.Message
	}
	return p.Path + ": " + p.Message
}

func problemf(path, format string, args ...any) *Problem {
	return &Problem{Path: path, Message: fmt.Sprintf(format, args...)}
}

const (
	matchPrefix  = "prefix"
	matchSegment = "segment"

	maxRetries = 10
	maxWeight  = 1_000_000
)

// Check reports the first thing wrong with the configuration, as a *Problem. It
// starts nothing, so that a configuration can be judged before it is loaded.
// What only a handler or a selection policy can know about its own options is
// left to their provisioning.
func (g *Gateway) Check() error {
	if g.Stats != nil {
		if err := g.Stats.Validate(); err != nil {
			return fieldProblem("stats", err)
		}
	}
	for i, endpoint := range g.Docker {
		if err := endpoint.Validate(); err != nil {
			return problemf(fmt.Sprintf("docker[%d].host", i), "%v", err)
		}
	}
	if d := g.DefaultResponse; d != nil && d.StatusCode != 0 && (d.StatusCode < 200 || d.StatusCode > 599) {
		return problemf("default_response.status_code",
			"%d is not a status that a response can end with: use 200 to 599", d.StatusCode)
	}
	names := make([]string, len(g.Backends))
	for i, b := range g.Backends {
		path := fmt.Sprintf("backends[%d]", i)
		if b == nil {
			return problemf(path, "is empty: give it a name, and match_labels or dial")
		}
		if b.Name == "" {
			return problemf(path, "the backend has no name: set name")
		}
		if slices.Contains(names[:i], b.Name) {
			return problemf(path+".name", "backend %q is defined twice: give each backend a name of its own", b.Name)
		}
		names[i] = b.Name
		if err := b.check(path); err != nil {
			return err
		}
	}
	return g.checkRoutes(names)
}

func (g *Gateway) checkRoutes(backends []string) error {
	if err := checkGroups(g.Groups, ""); err != nil {
		return err
	}
	routes := g.allRoutes()
	for _, rt := range routes {
		if rt.Route == nil {
			return problemf(rt.at, "is empty: give it a path_prefix and a backend")
		}
		if err := rt.check(rt.at); err != nil {
			return err
		}
		if err := rt.checkBackends(rt.at, backends); err != nil {
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
			if err := checkPath(path+".path_prefix", g.PathPrefix); err != nil {
				return err
			}
			if strings.HasSuffix(g.PathPrefix, "/*") {
				return problemf(path+".path_prefix", "%q ends in a wildcard, but routes go on after it: leave /* out", g.PathPrefix)
			}
		}
		if err := checkHosts(path, g.Hosts); err != nil {
			return err
		}
		if err := g.Deprecated.check(path); err != nil {
			return err
		}
		if err := checkGroups(g.Groups, path+"."); err != nil {
			return err
		}
	}
	return nil
}

func (rt *Route) checkBackends(path string, known []string) error {
	if rt.Backend != "" && len(rt.Backends) > 0 {
		return problemf(path+".backends", "route %s has both backend and backends: use one of them", rt.PathPrefix)
	}
	if rt.Backend == "" && len(rt.Backends) == 0 {
		return problemf(path, "route %s has no backend: set backend to one of the backends' names", rt.PathPrefix)
	}
	if rt.StickyKey != "" && len(rt.Backends) == 0 {
		return problemf(path+".sticky_key", "route %s has one backend only: sticky_key chooses among several; for one of a backend's containers, use its lb_policy", rt.PathPrefix)
	}
	if rt.Backend != "" && !slices.Contains(known, rt.Backend) {
		return problemf(path+".backend", "backend %q is not defined%s", rt.Backend, suggestOrList(rt.Backend, known))
	}
	total := 0
	var seen []string
	for i, s := range rt.Backends {
		at := fmt.Sprintf("%s.backends[%d]", path, i)
		switch {
		case s == nil || s.Name == "":
			return problemf(at, "has no name: set name to one of the backends' names")
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
		return problemf(path+".backends", "no backend has a weight: give at least one of them a weight above 0")
	}
	return nil
}

// suggestOrList helps whoever named a backend that is not there.
func suggestOrList(word string, known []string) string {
	if suggestion := Suggest(word, known); suggestion != "" {
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

// checkConflicts finds two routes of which one could never be chosen.
func checkConflicts(routes []placed) error {
	byPath := make(map[string][]placed, len(routes))
	for _, rt := range routes {
		path := rt.PathPrefix
		if p, _ := rt.parsePattern(); p != nil {
			path = "pattern " + p.shape()
		}
		for _, other := range byPath[path] {
			if rt.conflictsWith(other.Route) {
				return problemf(rt.at+".path_prefix",
					"%s is taken by %s (backend %q) already: remove one of the two, or tell them apart by match, hosts, headers, query or methods",
					rt.PathPrefix, other.at, strings.Join(other.backendNames(), ", "))
			}
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

func (rt *Route) check(path string) error {
	if rt.PathPrefix == "" {
		return problemf(path, "the route has no path_prefix: set it, to / for every path")
	}
	at := path + ".path_prefix"
	if err := checkPath(at, rt.PathPrefix); err != nil {
		return err
	}
	p, err := rt.parsePattern()
	if err != nil {
		return problemf(at, "%q %v", rt.PathPrefix, err)
	}
	if p != nil && rt.StripPrefix && p[len(p)-1].kind != segmentRest {
		return problemf(path+".strip_prefix", "%q takes whole paths, of which nothing would be left: end it with /*", rt.PathPrefix)
	}
	if err := rt.Deprecated.check(path); err != nil {
		return err
	}
	if rt.Match != "" && rt.Match != matchPrefix && rt.Match != matchSegment {
		return problemf(path+".match", "%q is no way to match%s: use %s or %s",
			rt.Match, Suggest(rt.Match, []string{matchPrefix, matchSegment}), matchPrefix, matchSegment)
	}
	for i, method := range rt.Methods {
		at := fmt.Sprintf("%s.methods[%d]", path, i)
		if !isToken(method) {
			return problemf(at, "%q is not a method: use names like GET and POST", method)
		}
		if upper := strings.ToUpper(method); upper != method {
			return problemf(at, "methods are in upper case: write %s for %q", upper, method)
		}
	}
	return checkHosts(path, rt.Hosts)
}

// parsePattern returns the route's pattern, or nil if it has a prefix.
func (rt *Route) parsePattern() (pattern, error) {
	if rt.Match != "" {
		return nil, nil
	}
	return parsePattern(rt.PathPrefix)
}

// checkPath looks for what can be in no path.
func checkPath(at, path string) error {
	switch {
	case path[0] != '/':
		return problemf(at, "%q does not begin with a slash: write %q", path, "/"+path)
	case strings.ContainsAny(path, "?#"):
		return problemf(at, "%q has a query or fragment: give the path alone", path)
	case strings.Contains(path, "%"):
		return problemf(at, "%q is percent-encoded: write the characters themselves, for the decoded path is compared", path)
	}
	return nil
}

func (d *Deprecation) check(path string) error {
	if d == nil {
		return nil
	}
	if _, err := d.fields(); err != nil {
		return problemf(path+".deprecated", "%v", err)
	}
	return nil
}

func checkHosts(path string, hosts []string) error {
	for i, host := range hosts {
		if err := checkHost(host); err != nil {
			return problemf(fmt.Sprintf("%s.hosts[%d]", path, i), "%v", err)
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

// isToken reports whether s is a token as RFC 9110, section 5.6.2 defines it.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
	})
}

func (b *Backend) check(path string) error {
	if strings.ContainsAny(b.Name, " \t\r\n{}\"") {
		return problemf(path+".name", "%q has a space, brace or quote: use letters, digits, dots, dashes or underscores", b.Name)
	}
	if err := b.checkAddresses(path); err != nil {
		return err
	}
	if b.Retries != nil && (*b.Retries < 0 || *b.Retries > maxRetries) {
		return problemf(path+".retries", "%d is out of range: use 0 (none) to %d", *b.Retries, maxRetries)
	}
	if t := b.Timeouts; t != nil {
		if t.Dial < 0 {
			return problemf(path+".timeouts.dial", "a dial needs a bound: use a positive duration such as 3s")
		}
		if t.Total < 0 {
			return problemf(path+".timeouts.total", "is negative: leave it out for no bound")
		}
	}
	if err := b.checkPolicy(path); err != nil {
		return err
	}
	return b.checkProxy(path)
}

func (b *Backend) checkAddresses(path string) error {
	if len(b.Dial) == 0 {
		if b.MatchLabels == nil {
			return problemf(path, "backend %q has neither match_labels nor dial: say which containers it is made of, or its addresses", b.Name)
		}
		if err := b.Selector.Validate(); err != nil {
			return fieldProblem(path, err)
		}
		return nil
	}
	if b.MatchLabels != nil {
		return problemf(path+".dial", "backend %q has both match_labels and dial: use one of them", b.Name)
	}
	if b.Port != 0 || b.Network != "" || b.Health != "" || b.HostPort {
		return problemf(path+".dial", "port, network, health and host_port are about containers: leave them out of backend %q, which has static addresses", b.Name)
	}
	switch b.Scheme {
	case "", "http", "https", "h2c":
	default:
		return problemf(path+".scheme", "%q is not a scheme: use http, https or h2c", b.Scheme)
	}
	for i, dial := range b.Dial {
		at := fmt.Sprintf("%s.dial[%d]", path, i)
		if scheme, rest, ok := strings.Cut(dial, "://"); ok {
			return problemf(at, "%q is a URL: write %q, and scheme: %s", dial, strings.TrimSuffix(rest, "/"), scheme)
		}
		addr, err := caddy.ParseNetworkAddress(dial)
		if err != nil {
			return problemf(at, "%q is not an address: use host:port", dial)
		}
		if !addr.IsUnixNetwork() && (addr.StartPort == 0 || addr.PortRangeSize() != 1) {
			return problemf(at, "%q has no port or several: use host:port with one port", dial)
		}
	}
	return nil
}

func (b *Backend) checkPolicy(path string) error {
	if b.LBPolicyRaw == nil {
		return nil
	}
	at := path + ".lb_policy"
	var policy struct {
		Policy  string `json:"policy"`
		Weights []int  `json:"weights"`
	}
	if err := json.Unmarshal(b.LBPolicyRaw, &policy); err != nil || policy.Policy == "" {
		return problemf(at, `has no policy: use {"policy": "least_conn"} or another of Caddy's`)
	}
	const namespace = "http.reverse_proxy.selection_policies"
	if _, err := caddy.GetModule(namespace + "." + policy.Policy); err != nil {
		var known []string
		for _, module := range caddy.GetModules(namespace) {
			known = append(known, module.ID.Name())
		}
		return problemf(at, "there is no selection policy %q%s: use one of %s",
			policy.Policy, Suggest(policy.Policy, known), strings.Join(known, ", "))
	}
	if policy.Policy == "weighted_round_robin" && len(policy.Weights) != len(b.Dial) {
		return problemf(at, "weighted_round_robin gives weights to positions in a list: use it with dial, and with as many weights as addresses")
	}
	return nil
}

// checkProxy looks for options that backend and proxy both set, or that belong
// to the backend alone.
func (b *Backend) checkProxy(path string) error {
	if b.ProxyRaw == nil {
		return nil
	}
	at := path + ".proxy"
	var proxy proxyOptions
	if err := json.Unmarshal(b.ProxyRaw, &proxy); err != nil {
		return problemf(at, "is not an object of reverse_proxy options: %v", err)
	}
	for _, key := range []string{"upstreams", "dynamic_upstreams"} {
		if _, ok := proxy[key]; ok {
			return problemf(at, "%s belong to the backend: use match_labels or dial instead", key)
		}
	}
	transport, err := proxy.object("transport")
	if err != nil {
		return problemf(at+".transport", "%v", err)
	}
	balancing, err := proxy.object("load_balancing")
	if err != nil {
		return problemf(at+".load_balancing", "%v", err)
	}
	dial, firstByte := b.Timeouts != nil && b.Timeouts.Dial != 0, b.Timeouts != nil && b.Timeouts.FirstByte != 0
	for _, twice := range []struct {
		set     bool
		option  string
		options proxyOptions
		key     string
	}{
		{b.LBPolicyRaw != nil, "lb_policy", balancing, "selection_policy"},
		{b.Retries != nil, "retries", balancing, "retries"},
		{dial, "timeouts.dial", transport, "dial_timeout"},
		{firstByte, "timeouts.first_byte", transport, "response_header_timeout"},
		{b.Scheme == "h2c", "scheme", transport, "versions"},
		{b.Scheme == "http", "scheme: http", transport, "tls"},
	} {
		if _, ok := twice.options[twice.key]; ok && twice.set {
			return problemf(at, "sets %s, which the backend's %s sets already: remove one of the two", twice.key, twice.option)
		}
	}
	return nil
}

// fieldProblem places an error of another package's configuration, which may
// know the field that it is about.
func fieldProblem(path string, err error) *Problem {
	var field interface{ Field() string }
	if errors.As(err, &field) && field.Field() != "" {
		path += "." + field.Field()
	}
	return problemf(path, "%v", err)
}

// label is how a route is called in statistics and logs.
func (rt *Route) label() string {
	if rt.Name != "" {
		return rt.Name
	}
	var parts []string
	if len(rt.Methods) > 0 {
		parts = append(parts, strings.Join(rt.Methods, ","))
	}
	return strings.Join(append(parts, strings.Join(rt.Hosts, ",")+rt.PathPrefix), " ")
}
