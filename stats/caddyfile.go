package stats

import (
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	httpcaddyfile.RegisterDirective("rgate_stats", parseCaddyfile)
}

// parseCaddyfile parses the directive rgate_stats. Unlike Caddy's directives, it treats a
// first argument with a leading slash as the page path and not as a path matcher. A
// handler that matches only its own page would record nothing.
func parseCaddyfile(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next() // consume the directive name
	var matcher caddy.ModuleMap
	if h.NextArg() && !strings.HasPrefix(h.Val(), "/") {
		h.Prev()
		var err error
		if matcher, err = h.ExtractMatcherSet(); err != nil {
			return nil, err
		}
	}
	h.Reset()
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return h.NewRoute(matcher, handler), nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	rgate_stats [*|@matcher] [<path>|off] {
//	    path     <path>
//	    allow    <ranges...>
//	    hosts    <names...>
//	    interval <duration>
//	    sink     <name> ...
//	    name     <name>
//	    route    <name>
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return h.unmarshal(d, func(option string) (bool, error) {
		switch option {
		case "name":
			return true, stringArg(d, &h.Name)
		case "route":
			return true, stringArg(d, &h.Route)
		}
		return false, nil
	})
}

// UnmarshalCaddyfile sets up the statistics from Caddyfile tokens, beginning with the
// directive name. Syntax:
//
//	stats [<path>|off] {
//	    path     <path>
//	    allow    <ranges...>
//	    hosts    <names...>
//	    interval <duration>
//	    sink     <name> ...
//	}
//
// `off` disables the page, but not sinks and metrics. `sink` can be repeated.
func (c *Config) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return c.unmarshal(d, func(string) (bool, error) { return false, nil })
}

// unmarshal parses the directive. It calls more for unknown options; more reports whether
// it has parsed the option.
func (c *Config) unmarshal(d *caddyfile.Dispenser, more func(option string) (bool, error)) error {
	d.Next() // consume the directive name
	if d.NextArg() {
		if d.Val() == "off" {
			c.Disabled = true
		} else if err := c.setPath(d); err != nil {
			return err
		}
		if d.NextArg() {
			return d.ArgErr()
		}
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		known, err := c.unmarshalOption(d)
		if err == nil && !known {
			known, err = more(d.Val())
		}
		if err != nil {
			return err
		}
		if !known {
			return d.Errf("unrecognized subdirective '%s'", d.Val())
		}
	}
	return nil
}

func (c *Config) unmarshalOption(d *caddyfile.Dispenser) (known bool, err error) {
	switch d.Val() {
	case "path":
		if !d.NextArg() {
			return true, d.ArgErr()
		}
		if err := c.setPath(d); err != nil {
			return true, err
		}
		if d.NextArg() {
			return true, d.ArgErr()
		}
		return true, nil
	case "allow":
		return true, listArg(d, &c.Allow)
	case "hosts":
		return true, listArg(d, &c.Hosts)
	case "interval":
		var text string
		if err := stringArg(d, &text); err != nil {
			return true, err
		}
		interval, err := caddy.ParseDuration(text)
		if err != nil {
			return true, d.Errf("invalid interval '%s': must be a duration such as 30s or 1m", text)
		}
		if c.Interval != 0 {
			return true, d.Errf("interval is set twice: '%s' and '%s': remove one of the two", time.Duration(c.Interval), text)
		}
		c.Interval = caddy.Duration(interval)
		return true, nil
	case "sink":
		return true, c.unmarshalSink(d)
	}
	return false, nil
}

// setPath sets the page path to the current token.
func (c *Config) setPath(d *caddyfile.Dispenser) error {
	if c.Path != "" {
		return d.Errf("path is set twice: '%s' and '%s': remove one of the two", c.Path, d.Val())
	}
	if !strings.HasPrefix(d.Val(), "/") {
		return d.Errf("invalid path '%s': must begin with a slash, or be 'off'", d.Val())
	}
	if strings.ContainsAny(d.Val(), "*?#") {
		return d.Errf("invalid path '%s': must not contain '*', '?' or '#': "+
			"with rgate_stats, put a named matcher before it to record only some requests", d.Val())
	}
	c.Path = d.Val()
	return nil
}

func (c *Config) unmarshalSink(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	name := d.Val()
	sink, err := caddyfile.UnmarshalModule(d, "rgate.stats.sinks."+name)
	if err != nil {
		return err
	}
	c.SinksRaw = append(c.SinksRaw, caddyconfig.JSONModuleObject(sink, "sink", name, nil))
	return nil
}

// UnmarshalCaddyfile sets up the sink from Caddyfile tokens. Syntax:
//
//	json_lines [<filename>] {
//	    filename     <filename>
//	    roll_size_mb <MiB>
//	    roll_keep    <files>
//	}
func (j *JSONLines) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the sink name
	if d.NextArg() {
		j.Filename = d.Val()
		if d.NextArg() {
			return d.ArgErr()
		}
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "filename":
			err = stringArg(d, &j.Filename)
		case "roll_size_mb":
			err = intArg(d, &j.RollSizeMB)
		case "roll_keep":
			err = intArg(d, &j.RollKeep)
		default:
			err = d.Errf("unrecognized subdirective '%s'", d.Val())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stringArg parses the only argument of the current subdirective.
func stringArg(d *caddyfile.Dispenser, into *string) error {
	if !d.AllArgs(into) {
		return d.ArgErr()
	}
	return nil
}

// listArg appends the arguments of the current subdirective to a list. It requires at
// least one.
func listArg(d *caddyfile.Dispenser, into *[]string) error {
	words := d.RemainingArgs()
	if len(words) == 0 {
		return d.ArgErr()
	}
	*into = append(*into, words...)
	return nil
}

func intArg(d *caddyfile.Dispenser, into *int) error {
	var text string
	if err := stringArg(d, &text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return d.Errf("invalid number '%s': must be a whole number above 0", text)
	}
	*into = n
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Handler)(nil)
	_ caddyfile.Unmarshaler = (*Config)(nil)
	_ caddyfile.Unmarshaler = (*JSONLines)(nil)
)
