package gateway

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/rgate/rgate/gateway/operations"
)

// operations parses the operations subdirective: its options and handlers.
func (p *parser) operations() error {
	const path = "operations"
	if err := p.once(path); err != nil {
		return err
	}
	directive, o := p.Token(), new(operations.Config)
	p.gateway.Operations = o
	if p.NextArg() {
		o.Path, p.tokens[path+".path"] = p.Val(), p.Token()
	}
	if p.NextArg() {
		return p.ArgErr()
	}
	var directives []caddyfile.Segment
	for nesting := p.Nesting(); p.NextBlock(nesting); {
		var err error
		switch p.Val() {
		case "allow":
			err = p.list(path+".allow", &o.Allow)
		case "hosts":
			err = p.list(path+".hosts", &o.Hosts)
		case "registration":
			err = p.registration(path+".registration", o)
		default:
			directives = append(directives, p.NextSegment())
		}
		if err != nil {
			return err
		}
	}
	var err error
	o.HandlersRaw, err = p.handlers(directive, directives, []string{"allow", "hosts", "registration"})
	return err
}

func (p *parser) registration(path string, o *operations.Config) error {
	if err := p.once(path); err != nil {
		return err
	}
	o.Registration = new(operations.Registration)
	if !p.NextArg() {
		return nil
	}
	ttl, err := caddy.ParseDuration(p.Val())
	if err != nil {
		return p.Errf("invalid registration '%s': must be a duration such as 300s", p.Val())
	}
	o.Registration.TTL, p.tokens[path+".ttl"] = caddy.Duration(ttl), p.Token()
	if p.NextArg() {
		return p.ArgErr()
	}
	return nil
}
