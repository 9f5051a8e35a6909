package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/dockerupstreams"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("rgate", parseCaddyfile)
}

// parseCaddyfile sets up the gateway from Caddyfile tokens. Syntax:
//
//	rgate [<matcher>] {
//	    name   <name>
//	    docker [<host>] {
//	        cert_path <folder>
//	        routed    <network...>
//	        drain     <duration>
//	        stop_signals <signal...>
//	        trust     <duration>
//	    }
//	    stats  <path> | off | { ... }
//	    operations [<path>] {
//	        allow <ranges...>
//	        hosts <names...>
//	        registration [<ttl>]
//	        <directives...>
//	    }
//	    default_response [<body>] [<status>] {
//	        body   <body>
//	        status <status>
//	    }
//	    trust_identity
//	    keep_fields <field...>
//	    max_hops <number>
//	    stream_close_delay <duration>
//	    legacy <behaviour...>
//
//	    backend <name> {
//	        # the containers ...
//	        match_labels <key=value...>
//	        port         <port>
//	        network      <name>
//	        scheme       http|https|h2c
//	        health       healthy|any
//	        host_port
//	        include      one_offs|build_steps|local_addresses...
//
//	        # ... or the addresses
//	        dial <host:port...>
//	        register
//
//	        lb_policy <name> [<options...>]
//	        upgrades  <protocol...>
//	        retries   <number>
//	        retry_budget [<ratio> [<min_per_second>]]
//	        timeouts {
//	            dial       <duration>
//	            first_byte <duration>
//	            total      <duration>
//	        }
//	        proxy {
//	            <subdirectives of reverse_proxy...>
//	        }
//	        <policies...>
//	        around {
//	            <directives...>
//	        }
//	    }
//
//	    route <path_prefix> [<backend>] {
//	        name    <name>
//	        match   prefix|segment
//	        methods <method...>
//	        hosts   <host...>
//	        headers <field> <value...> | !<field>
//	        query   <key=value...>
//	        strip_prefix
//	        timeouts { ... }
//	        deprecated {
//	            since  <date>
//	            sunset <date>
//	            link   <url>
//	        }
//
//	        # instead of the backend argument
//	        backends {
//	            <name> <weight>
//	        }
//	        sticky_key <placeholder>
//
//	        <directives...>
//	    }
//
//	    group [<path_prefix>] {
//	        hosts   ...
//	        headers ...
//	        query   ...
//	        deprecated { ... }
//	        route [<path_prefix>] [<backend>] { ... }
//	        group ...
//	        <directives...>
//	    }
//
//	    <directives...>
//	}
//
// The directives can be any of Caddy's HTTP directives, and named matchers for them. In
// each block, they are sorted in the same order as in a site. The directive of a handler
// `rgate_foo` can be written as `foo`. Policies run in a fixed order. Other directives of
// the gateway run first, followed by directives of groups, of the route and of around.
//
// docker, keep_fields, legacy, match_labels, dial, upgrades, methods, hosts, headers,
// query and allow can be repeated.
func parseCaddyfile(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	p := &parser{Helper: h, gateway: new(Gateway), tokens: make(map[string]caddyfile.Token)}
	p.Next() // consume the directive's name
	p.tokens[""] = p.Token()
	if p.NextArg() {
		return nil, p.ArgErr()
	}
	if err := p.parse(); err != nil {
		return nil, err
	}
	var problem *Problem
	if err := p.gateway.Check(); errors.As(err, &problem) {
		token := p.tokenOf(problem.Path)
		return nil, errAt(token, "%s", problem.Text(func(other string) string { return placeFrom(token, p.tokenOf(other)) }))
	} else if err != nil {
		return nil, err
	}
	return p.gateway, nil
}

// parser reads the block of an rgate directive.
type parser struct {
	httpcaddyfile.Helper
	gateway *Gateway

	// The token of each value, by its JSON path. Used for the positions in errors.
	tokens map[string]caddyfile.Token

	// The definitions of the named matchers of the outer blocks, which inner blocks can
	// use.
	matchers []caddyfile.Segment
}

func (p *parser) parse() error {
	var directives, blocks []caddyfile.Segment
	for nesting := p.Nesting(); p.NextBlock(nesting); {
		var err error
		switch p.Val() {
		case "name":
			err = p.text("name", &p.gateway.Name)
		case "docker":
			err = p.docker()
		case "stats":
			if err = p.once("stats"); err == nil {
				p.gateway.Stats = new(stats.Config)
				err = p.gateway.Stats.UnmarshalCaddyfile(p.NewFromNextSegment())
			}
		case "operations":
			err = p.operations()
		case "default_response":
			err = p.defaultResponse()
		case "trust_identity":
			err = p.flag("trust_identity", &p.gateway.TrustIdentity)
		case "keep_fields":
			err = p.list("keep_fields", &p.gateway.KeepFields)
		case "max_hops":
			p.gateway.MaxHops = new(int)
			err = p.number("max_hops", p.gateway.MaxHops)
		case "stream_close_delay":
			err = p.timeout("stream_close_delay", &p.gateway.StreamCloseDelay)
		case "legacy":
			err = p.list("legacy", &p.gateway.Legacy)
		case "backend", "route", "group":
			// Parsed last, when the named matchers are known.
			blocks = append(blocks, p.NextSegment())
		default:
			directives = append(directives, p.NextSegment())
		}
		if err != nil {
			return err
		}
	}
	known := []string{"name", "docker", "stats", "operations", "default_response", "trust_identity", "keep_fields", "max_hops", "stream_close_delay", "legacy", "backend", "route", "group"}
	var err error
	if p.gateway.HandlersRaw, err = p.handlers(p.tokens[""], directives, known); err != nil {
		return err
	}
	return p.inner(directives, blocks, func(p *parser) error {
		switch p.Val() {
		case "route":
			return p.route("", &p.gateway.Routes)
		case "group":
			return p.group("", &p.gateway.Groups)
		}
		return p.backend()
	})
}

// inner parses the blocks inside a block. They can use the named matchers among its
// directives.
func (p *parser) inner(directives, blocks []caddyfile.Segment, read func(*parser) error) error {
	for _, segment := range directives {
		if strings.HasPrefix(segment.Directive(), "@") {
			p.matchers = append(p.matchers, segment)
		}
	}
	for _, segment := range blocks {
		inner := *p
		inner.matchers = slices.Clip(p.matchers)
		inner.Helper = p.WithDispenser(caddyfile.NewDispenser(segment))
		inner.Next() // consume the subdirective's name
		if err := read(&inner); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) docker() error {
	p.tokens[fmt.Sprintf("docker[%d]", len(p.gateway.Docker))] = p.Token()
	var endpoint dockerupstreams.Endpoint
	err := options.Unmarshal(p.Dispenser, &endpoint)
	p.gateway.Docker = append(p.gateway.Docker, endpoint)
	return err
}

func (p *parser) defaultResponse() error {
	const path = "default_response"
	if err := p.once(path); err != nil {
		return err
	}
	directive, response := p.Token(), new(DefaultResponse)
	args := p.RemainingArgsAsTokens()
	if n := len(args); n > 0 && (n == 2 || isStatus(args[0].Text)) {
		status, err := strconv.Atoi(args[n-1].Text)
		if err != nil {
			return errAt(args[n-1], "invalid status '%s': must be a number: if this is part of the body, put the body in quotes", args[n-1].Text)
		}
		response.StatusCode = status
		args = args[:n-1]
	}
	if len(args) > 1 {
		return errAt(directive, "default_response has too many arguments: put the body in quotes")
	}
	if len(args) == 1 {
		response.Body = args[0].Text
	}
	for nesting := p.Nesting(); p.NextBlock(nesting); {
		var err error
		switch p.Val() {
		case "body":
			err = p.text(path+".body", &response.Body)
		case "status":
			err = p.number(path+".status_code", &response.StatusCode)
		default:
			err = p.unrecognized("body", "status")
		}
		if err != nil {
			return err
		}
	}
	if *response == (DefaultResponse{}) {
		return errAt(directive, "default_response requires a body or a status")
	}
	p.gateway.DefaultResponse = response
	return nil
}

// isStatus reports whether s, the only argument of default_response, is a status code
// and not a body.
func isStatus(s string) bool {
	status, err := strconv.Atoi(s)
	return err == nil && len(s) == 3 && status > 0
}

func (p *parser) backend() error {
	path, b := fmt.Sprintf("backends[%d]", len(p.gateway.Backends)), new(Backend)
	p.tokens[path] = p.Token()
	if !p.NextArg() {
		return p.Errf("the name of the backend is required, such as 'backend payment { ... }'")
	}
	b.Name = p.Val()
	p.tokens[path+".name"] = p.Token()
	if p.NextArg() {
		return p.ArgErr()
	}
	p.gateway.Backends = append(p.gateway.Backends, b)
	directive := p.tokens[path]
	var policies []caddyfile.Segment
	for nesting := p.Nesting(); p.NextBlock(nesting); {
		if _, ok := policy.Lookup(strings.TrimPrefix(p.Val(), policy.Prefix)); ok {
			policies = append(policies, p.NextSegment())
		} else if err := p.backendOption(path, b); err != nil {
			return err
		}
	}
	handlers, err := p.handlers(directive, policies, nil)
	b.AroundRaw = append(b.AroundRaw, handlers...)
	return err
}

func (p *parser) backendOption(path string, b *Backend) (err error) {
	at := path + "." + p.Val()
	switch p.Val() {
	case "match_labels":
		return p.labels(at, b)
	case "dial":
		return p.list(at, &b.Dial)
	case "register":
		return p.flag(at, &b.Register)
	case "port":
		return p.number(at, &b.Port)
	case "network":
		return p.text(at, &b.Network)
	case "scheme":
		return p.text(at, &b.Scheme)
	case "health":
		return p.text(at, &b.Health)
	case "host_port":
		return p.flag(at, &b.HostPort)
	case "include":
		return p.list(at, &b.Include)
	case "lb_policy":
		return p.policy(at, b)
	case "upgrades":
		return p.list(at, &b.Upgrades)
	case "retries":
		b.Retries = new(int)
		return p.number(at, b.Retries)
	case "timeouts":
		return p.timeouts(at, &b.Timeouts)
	case "retry_budget":
		return p.retryBudget(at, b)
	case "proxy":
		return p.proxy(at, b)
	case "around":
		b.AroundRaw, err = p.around(at)
		return err
	}
	return p.unrecognized("match_labels", "dial", "register", "port", "network", "scheme", "health", "host_port", "include",
		"lb_policy", "upgrades", "retries", "retry_budget", "timeouts", "proxy", "around")
}

func (p *parser) policy(path string, b *Backend) error {
	if err := p.once(path); err != nil {
		return err
	}
	if !p.NextArg() {
		return p.ArgErr()
	}
	const namespace = "http.reverse_proxy.selection_policies"
	name := p.Val()
	if _, err := caddy.GetModule(namespace + "." + name); err != nil {
		var known []string
		for _, module := range caddy.GetModules(namespace) {
			known = append(known, module.ID.Name())
		}
		return p.Errf("unknown selection policy '%s'%s: use one of %s", name, options.Suggest(name, known), strings.Join(known, ", "))
	}
	module, err := caddyfile.UnmarshalModule(p.Dispenser, namespace+"."+name)
	if err != nil {
		return err
	}
	b.LBPolicyRaw = caddyconfig.JSONModuleObject(module, "policy", name, nil)
	return nil
}

func (p *parser) proxy(path string, b *Backend) error {
	if err := p.once(path); err != nil {
		return err
	}
	d := p.NewFromNextSegment()
	proxy := new(reverseproxy.Handler)
	if err := proxy.UnmarshalCaddyfile(d); err != nil {
		return err
	}
	if err := proxy.FinalizeUnmarshalCaddyfile(p.WithDispenser(d)); err != nil {
		return err
	}
	b.ProxyRaw = caddyconfig.JSON(proxy, nil)
	return nil
}

func (p *parser) around(path string) ([]json.RawMessage, error) {
	if err := p.once(path); err != nil {
		return nil, err
	}
	directive := p.Token()
	if p.NextArg() {
		return nil, p.ArgErr()
	}
	var directives []caddyfile.Segment
	for nesting := p.Nesting(); p.NextBlock(nesting); {
		directives = append(directives, p.NextSegment())
	}
	return p.handlers(directive, directives, nil)
}
