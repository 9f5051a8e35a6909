package gateway

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Subdirectives of routes and groups, for "did you mean" suggestions.
var (
	routeOptions = []string{"name", "match", "methods", "hosts", "headers", "query", "strip_prefix", "timeouts", "deprecated", "backends", "sticky_key"}
	groupOptions = []string{"hosts", "headers", "query", "deprecated", "route", "group"}
)

// route parses a route and appends it to routes. at is the JSON path of that list.
func (p *parser) route(at string, routes *[]*Route) error {
	path, directive, rt := fmt.Sprintf("%sroutes[%d]", at, len(*routes)), p.Token(), new(Route)
	*routes = append(*routes, rt)
	p.tokens[path] = directive
	args := p.RemainingArgsAsTokens()
	if len(args) > 0 && (at == "" || len(args) == 2 || strings.HasPrefix(args[0].Text, "/")) {
		rt.PathPrefix, p.tokens[path+".path_prefix"] = args[0].Text, args[0]
		args = args[1:]
	}
	if len(args) == 1 {
		rt.Backend, p.tokens[path+".backend"] = args[0].Text, args[0]
		args = nil
	}
	var directives []caddyfile.Segment
	for nesting := p.Nesting(); p.NextBlock(nesting); {
		known, err := p.routeOption(path, rt)
		if err != nil {
			return err
		}
		if !known {
			directives = append(directives, p.NextSegment())
		}
	}
	var err error
	if rt.HandlersRaw, err = p.handlers(directive, directives, routeOptions); err != nil {
		return err
	}
	if len(args) > 0 || at == "" && rt.PathPrefix == "" || rt.Backend == "" && len(rt.Backends) == 0 {
		return errAt(directive, "route requires a path prefix, and one backend or a backends block, such as 'route /api/payment payment'")
	}
	return nil
}

// routeOption parses a subdirective of a route. It returns false for unknown names.
func (p *parser) routeOption(path string, rt *Route) (known bool, err error) {
	at := path + "." + p.Val()
	switch p.Val() {
	case "name":
		return true, p.text(at, &rt.Name)
	case "match":
		return true, p.text(at, &rt.Match)
	case "methods":
		return true, p.list(at, &rt.Methods)
	case "hosts":
		return true, p.list(at, &rt.Hosts)
	case "headers":
		return true, p.headers(at, (*map[string][]string)(&rt.Headers))
	case "query":
		return true, p.query(at, (*map[string][]string)(&rt.Query))
	case "strip_prefix":
		return true, p.flag(at, &rt.StripPrefix)
	case "timeouts":
		return true, p.timeouts(at, &rt.Timeouts)
	case "deprecated":
		return true, p.deprecated(at, &rt.Deprecated)
	case "backends":
		return true, p.shares(at, rt)
	case "sticky_key":
		return true, p.text(at, &rt.StickyKey)
	}
	return false, nil
}

// group parses a group and appends it to groups. at is the JSON path of that list.
func (p *parser) group(at string, groups *[]*Group) error {
	path, directive, g := fmt.Sprintf("%sgroups[%d]", at, len(*groups)), p.Token(), new(Group)
	*groups = append(*groups, g)
	p.tokens[path] = directive
	if p.NextArg() {
		g.PathPrefix, p.tokens[path+".path_prefix"] = p.Val(), p.Token()
	}
	if p.NextArg() {
		return p.ArgErr()
	}
	var directives, blocks []caddyfile.Segment
	for nesting := p.Nesting(); p.NextBlock(nesting); {
		at := path + "." + p.Val()
		var err error
		switch p.Val() {
		case "hosts":
			err = p.list(at, &g.Hosts)
		case "headers":
			err = p.headers(at, (*map[string][]string)(&g.Headers))
		case "query":
			err = p.query(at, (*map[string][]string)(&g.Query))
		case "deprecated":
			err = p.deprecated(at, &g.Deprecated)
		case "route", "group":
			// Parsed last, when the named matchers are known.
			blocks = append(blocks, p.NextSegment())
		default:
			directives = append(directives, p.NextSegment())
		}
		if err != nil {
			return err
		}
	}
	var err error
	if g.HandlersRaw, err = p.handlers(directive, directives, groupOptions); err != nil {
		return err
	}
	return p.inner(directives, blocks, func(p *parser) error {
		if p.Val() == "group" {
			return p.group(path+".", &g.Groups)
		}
		return p.route(path+".", &g.Routes)
	})
}

// headers parses a condition on a header field. Repeated lines for a field add values.
func (p *parser) headers(path string, target *map[string][]string) error {
	p.tokens[path] = p.Token()
	if !p.NextArg() {
		return p.ArgErr()
	}
	field, values := p.Token(), p.RemainingArgs()
	name, absent := strings.CutPrefix(field.Text, "!")
	switch {
	case absent && len(values) > 0:
		return errAt(field, "a header field that must be absent cannot have values: use '%s' without values, or '%s' with values", field.Text, name)
	case !absent && len(values) == 0:
		return errAt(field, "header field '%s' has no values: use '%s *' to match any value, or '!%s' to match its absence", name, name, name)
	}
	before, again := (*target)[name]
	if again && absent != (before == nil) {
		return errAt(field, "header field '%s' cannot both be absent and have values: remove one of the two lines", name)
	}
	if *target == nil {
		*target = make(map[string][]string)
	}
	(*target)[name] = append(before, values...)
	p.tokens[path+"."+name] = field
	return nil
}

// query parses conditions on query parameters. Repeated lines for a parameter add
// values.
func (p *parser) query(path string, target *map[string][]string) error {
	p.tokens[path] = p.Token()
	args := p.RemainingArgsAsTokens()
	if len(args) == 0 {
		return p.ArgErr()
	}
	if *target == nil {
		*target = make(map[string][]string, len(args))
	}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg.Text, "=")
		if !ok {
			return errAt(arg, "query parameter '%s' has no value: use %s=value, or %s=* to match any value", arg.Text, arg.Text, arg.Text)
		}
		(*target)[name] = append((*target)[name], value)
		p.tokens[path+"."+name] = arg
	}
	return nil
}

func (p *parser) deprecated(path string, target **Deprecation) error {
	if err := p.once(path); err != nil {
		return err
	}
	if p.NextArg() {
		return p.Errf("deprecated requires a block: write 'deprecated {', 'sunset 2026-12-31' and '}' on separate lines")
	}
	d := new(Deprecation)
	*target = d
	for nesting := p.Nesting(); p.NextBlock(nesting); {
		at := path + "." + p.Val()
		var err error
		switch p.Val() {
		case "since":
			err = p.text(at, &d.Since)
		case "sunset":
			err = p.text(at, &d.Sunset)
		case "link":
			err = p.text(at, &d.Link)
		default:
			err = p.unrecognized("since", "sunset", "link")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// shares parses the backends block: names and weights.
func (p *parser) shares(path string, rt *Route) error {
	if err := p.once(path); err != nil {
		return err
	}
	if p.NextArg() {
		return p.Errf("backends requires a block: add a line for each backend, such as 'payment 95'")
	}
	for nesting := p.Nesting(); p.NextBlock(nesting); {
		at, s := fmt.Sprintf("%s[%d]", path, len(rt.Backends)), &Share{Name: p.Val()}
		p.tokens[at+".name"] = p.Token()
		if err := p.number(at+".weight", &s.Weight); err != nil {
			return err
		}
		rt.Backends = append(rt.Backends, s)
	}
	if len(rt.Backends) == 0 {
		return errAt(p.tokens[path], "backends is empty: add a line for each backend, such as 'payment 95'")
	}
	return nil
}
