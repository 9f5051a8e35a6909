package caddyfile

import (
	"maps"
	"reflect"
	"slices"
	"strconv"

	"github.com/rgate/rgate/gateway"
)

// routes writes the routes and groups at a path: "" for the gateway, or the path of a
// group with a trailing dot.
func (p *printer) routes(at string, routes []*gateway.Route, groups []*gateway.Group) {
	for i, route := range routes {
		path, words := element(at+"routes", i), nonEmpty(route.PathPrefix, route.Backend)
		if bare := (gateway.Route{PathPrefix: route.PathPrefix, Backend: route.Backend}); reflect.DeepEqual(*route, bare) {
			p.line(path, "route", words...)
			continue
		}
		p.block(path, "route", words, func() { p.route(path, route) })
	}
	for i, group := range groups {
		path := element(at+"groups", i)
		p.block(path, "group", nonEmpty(group.PathPrefix), func() { p.group(path, group) })
	}
}

func (p *printer) route(path string, rt *gateway.Route) {
	p.option(path+".name", "name", rt.Name)
	p.option(path+".match", "match", rt.Match)
	p.list(path+".methods", "methods", rt.Methods)
	p.list(path+".hosts", "hosts", rt.Hosts)
	p.headers(path+".headers", rt.Headers)
	p.query(path+".query", rt.Query)
	if rt.StripPrefix {
		p.line(path+".strip_prefix", "strip_prefix")
	}
	p.timeouts(path+".timeouts", rt.Timeouts)
	p.deprecated(path+".deprecated", rt.Deprecated)
	if len(rt.Backends) > 0 {
		p.block(path+".backends", "backends", nil, func() {
			for i, share := range rt.Backends {
				at := element(path+".backends", i)
				name, err := quote(share.Name)
				if err != nil {
					p.fails(at, "%v", err)
				}
				p.line(at, name, strconv.Itoa(share.Weight))
			}
		})
	}
	p.option(path+".sticky_key", "sticky_key", rt.StickyKey)
	p.handlers(path+".handle", rt.HandlersRaw)
}

func (p *printer) group(path string, g *gateway.Group) {
	p.list(path+".hosts", "hosts", g.Hosts)
	p.headers(path+".headers", g.Headers)
	p.query(path+".query", g.Query)
	p.deprecated(path+".deprecated", g.Deprecated)
	p.handlers(path+".handle", g.HandlersRaw)
	p.routes(path+".", g.Routes, g.Groups)
}

func (p *printer) headers(path string, headers map[string][]string) {
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		if values := headers[name]; values != nil {
			p.line(member(path, name), "headers", append([]string{name}, values...)...)
		} else {
			p.line(member(path, name), "headers", "!"+name)
		}
	}
}

func (p *printer) query(path string, query map[string][]string) {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(query)) {
		for _, value := range query[name] {
			words = append(words, name+"="+value)
		}
	}
	p.list(path, "query", words)
}

func (p *printer) deprecated(path string, d *gateway.Deprecation) {
	switch {
	case d == nil:
	case *d == (gateway.Deprecation{}):
		p.line(path, "deprecated")
	default:
		p.block(path, "deprecated", nil, func() {
			p.option(path+".since", "since", d.Since)
			p.option(path+".sunset", "sunset", d.Sunset)
			p.option(path+".link", "link", d.Link)
		})
	}
}

// list writes a subdirective if it has arguments.
func (p *printer) list(path, keyword string, words []string) {
	if len(words) > 0 {
		p.line(path, keyword, words...)
	}
}
