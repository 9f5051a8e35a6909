package balance

import (
	"strconv"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// UnmarshalCaddyfile parses the policy from Caddyfile tokens. Syntax:
//
//	lb_policy ring_hash [<key>] {
//		virtual_nodes <number>
//		load_factor   <number>
//	}
func (p *RingHash) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the policy name
	if d.NextArg() {
		p.Key = d.Val()
		if err := p.checkKey(); err != nil {
			return d.WrapErr(err)
		}
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		option := d.Val()
		var given bool
		switch option {
		case "virtual_nodes":
			given = p.VirtualNodes != 0
		case "load_factor":
			given = p.LoadFactor != 0
		default:
			return d.Errf("unrecognized option '%s': use virtual_nodes or load_factor", option)
		}
		if given {
			return d.Errf("%s is set twice: remove one of the two", option)
		}
		if !d.NextArg() {
			return d.ArgErr()
		}
		if err := p.parse(option, d.Val()); err != nil {
			return d.WrapErr(err)
		}
		if d.NextArg() {
			return d.ArgErr()
		}
	}
	return nil
}

// parse parses the value of an option.
func (p *RingHash) parse(option, text string) error {
	var err error
	switch option {
	case "virtual_nodes":
		if p.VirtualNodes, err = strconv.Atoi(text); err != nil {
			return notANumber(option, text, "a whole number from 1 to 10000")
		}
		if p.VirtualNodes == 0 { // 0 would mean the default
			return outOfRange(0)
		}
		return p.checkVirtualNodes()
	default:
		if p.LoadFactor, err = strconv.ParseFloat(text, 64); err != nil {
			return notANumber(option, text, "a number above 1, such as 1.25")
		}
		return p.checkLoadFactor()
	}
}

// UnmarshalCaddyfile parses the policy from Caddyfile tokens. Syntax:
//
//	lb_policy least_latency
func (p *LeastLatency) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the policy name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		return d.Errf("unrecognized option '%s': least_latency has no options", d.Val())
	}
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*RingHash)(nil)
	_ caddyfile.Unmarshaler = (*LeastLatency)(nil)
)
