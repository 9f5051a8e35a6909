package caddyfile

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
)

// serverOptions are options of the server around the gateway. They are called as
// the global option `servers` of a Caddyfile calls them.
type serverOptions struct {
	// The proxies, as IP addresses or ranges, whose word about the client's address
	// is taken, from the field X-Forwarded-For; `private_ranges` for all private
	// ones. Default: none.
	TrustedProxies []string `json:"trusted_proxies,omitempty"`

	// How long clients may take.
	Timeouts *serverTimeouts `json:"timeouts,omitempty"`

	// How large the header of a request may be: 431 for what is larger. Default:
	// Caddy's, 16 KiB.
	MaxHeaderSize policy.Size `json:"max_header_size,omitempty"`
}

// serverTimeouts bound how long a slow client can keep a connection busy.
type serverTimeouts struct {
	// To send the header of a request. Default: Caddy's, 1m.
	ReadHeader caddy.Duration `json:"read_header,omitempty"`

	// To send a whole request, the body included. Default: no bound.
	ReadBody caddy.Duration `json:"read_body,omitempty"`

	// To go on with a body. Default: Caddy's, 1m.
	ReadBodyIdle caddy.Duration `json:"read_body_idle,omitempty"`

	// To receive a whole answer. Default: no bound.
	Write caddy.Duration `json:"write,omitempty"`

	// To go on receiving an answer. Default: Caddy's, 1m.
	WriteIdle caddy.Duration `json:"write_idle,omitempty"`

	// To send the next request on a connection. Default: Caddy's, 5m.
	Idle caddy.Duration `json:"idle,omitempty"`
}

const privateRanges = "private_ranges"

// each calls a function with the name and value of every timeout that is set.
func (t *serverTimeouts) each(f func(name string, value caddy.Duration)) {
	if t == nil {
		return
	}
	for _, timeout := range []struct {
		name  string
		value caddy.Duration
	}{
		{"read_header", t.ReadHeader}, {"read_body", t.ReadBody}, {"read_body_idle", t.ReadBodyIdle},
		{"write", t.Write}, {"write_idle", t.WriteIdle}, {"idle", t.Idle},
	} {
		if timeout.value != 0 {
			f(timeout.name, timeout.value)
		}
	}
}

func (r *reader) checkServer(o *serverOptions) (err error) {
	if o == nil {
		return nil
	}
	for i, text := range o.TrustedProxies {
		_, prefixErr := netip.ParsePrefix(text)
		_, addrErr := netip.ParseAddr(text)
		if text != privateRanges && prefixErr != nil && addrErr != nil {
			return r.failAt(element("server.trusted_proxies", i), "%q is no address or range: use one such as 10.0.0.0/8, or %s", text, privateRanges)
		}
	}
	o.Timeouts.each(func(name string, value caddy.Duration) {
		if value < 0 && err == nil {
			err = r.failAt("server.timeouts."+name, "%s is negative: leave it out for its default", name)
		}
	})
	if o.MaxHeaderSize < 0 || o.MaxHeaderSize > 1<<30 {
		return r.failAt("server.max_header_size", "max_header_size %d is out of range: use 1KiB to 1GiB", int64(o.MaxHeaderSize))
	}
	return err
}

// apply sets the options of a server.
func (o *serverOptions) apply(server *caddyhttp.Server) {
	if o == nil {
		return
	}
	server.MaxHeaderBytes = int(o.MaxHeaderSize)
	if t := o.Timeouts; t != nil {
		server.ReadHeaderTimeout, server.ReadTimeout, server.ReadIdleTimeout = t.ReadHeader, t.ReadBody, t.ReadBodyIdle
		server.WriteTimeout, server.WriteIdleTimeout, server.IdleTimeout = t.Write, t.WriteIdle, t.Idle
	}
	if len(o.TrustedProxies) > 0 {
		var ranges []string
		for _, text := range o.TrustedProxies {
			if text == privateRanges {
				ranges = append(ranges, caddyhttp.PrivateRangesCIDR()...)
			} else {
				ranges = append(ranges, text)
			}
		}
		server.TrustedProxiesRaw = caddyconfig.JSONModuleObject(caddyhttp.StaticIPRange{Ranges: ranges}, "source", "static", nil)
		// From the right, to the first that is no trusted proxy: what is further left may be
		// the client's own words, to which proxies append.
		server.TrustedProxiesStrict = 1
	}
}

// server writes the options of the server as global ones.
func (p *printer) server(o *serverOptions) {
	if o == nil {
		return
	}
	lines := []string{"servers {"}
	if len(o.TrustedProxies) > 0 {
		line := "\ttrusted_proxies static"
		for _, text := range o.TrustedProxies {
			line += " " + text // which checkServer has judged
		}
		lines = append(lines, line, "\ttrusted_proxies_strict")
	}
	var timeouts []string
	o.Timeouts.each(func(name string, value caddy.Duration) {
		timeouts = append(timeouts, "\t\t"+name+" "+formatDuration(value))
	})
	if timeouts != nil {
		lines = slices.Concat(lines, []string{"\ttimeouts {"}, timeouts, []string{"\t}"})
	}
	if o.MaxHeaderSize > 0 {
		lines = append(lines, fmt.Sprintf("\tmax_header_size %d", o.MaxHeaderSize))
	}
	p.global = append(p.global, append(lines, "}")...)
}
