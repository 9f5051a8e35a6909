package caddyfile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

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

// serverTimeouts bound how long a slow client can keep a connection busy. 0 disables
// a limit.
type serverTimeouts struct {
	// To send the header of a request. Default: Caddy's, 1m.
	ReadHeader policy.Timeout `json:"read_header,omitempty"`

	// To send a whole request, the body included. Default: no bound.
	ReadBody policy.Timeout `json:"read_body,omitempty"`

	// To go on with a body. Default: Caddy's, 1m.
	ReadBodyIdle policy.Timeout `json:"read_body_idle,omitempty"`

	// To receive a whole answer. Default: no bound.
	Write policy.Timeout `json:"write,omitempty"`

	// To go on receiving an answer. Default: Caddy's, 1m.
	WriteIdle policy.Timeout `json:"write_idle,omitempty"`

	// To send the next request on a connection. Default: Caddy's, 5m.
	Idle policy.Timeout `json:"idle,omitempty"`
}

const privateRanges = "private_ranges"

// each calls a function with the name and value of every timeout that is set.
func (t *serverTimeouts) each(f func(name string, value policy.Timeout)) {
	if t == nil {
		return
	}
	for _, timeout := range []struct {
		name  string
		value policy.Timeout
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
	o.Timeouts.each(func(name string, value policy.Timeout) {
		if value < 0 && value != policy.TimeoutOff && err == nil {
			err = r.failAt("server.timeouts."+name, "%s is negative: use 0s to disable it, or leave it out for its default", name)
		}
	})
	if o.MaxHeaderSize < 0 || o.MaxHeaderSize > 1<<30 {
		return r.failAt("server.max_header_size", "max_header_size %d is out of range: use 1KiB to 1GiB", int64(o.MaxHeaderSize))
	}
	return err
}

// warnings are about changes of what a valid configuration does.
func (r *reader) warnings(doc *document) (warnings []caddyconfig.Warning) {
	if doc.Server == nil {
		return nil
	}
	doc.Server.Timeouts.each(func(name string, value policy.Timeout) {
		if value == policy.TimeoutOff {
			at := "server.timeouts." + name
			warnings = append(warnings, caddyconfig.Warning{File: r.file, Line: r.line(at), Directive: at,
				Message: "the time limit is written as 0 and off, for all routes: remove it for its default"})
		}
	})
	return warnings
}

// apply sets the options of a server.
func (o *serverOptions) apply(server *caddyhttp.Server) {
	if o == nil {
		return
	}
	server.MaxHeaderBytes = int(o.MaxHeaderSize)
	if t := o.Timeouts; t != nil {
		// Caddy takes 0 for its default, and a negative duration for no limit.
		server.ReadHeaderTimeout, server.ReadTimeout = caddy.Duration(t.ReadHeader), caddy.Duration(t.ReadBody)
		server.ReadIdleTimeout, server.WriteTimeout = caddy.Duration(t.ReadBodyIdle), caddy.Duration(t.Write)
		server.WriteIdleTimeout, server.IdleTimeout = caddy.Duration(t.WriteIdle), caddy.Duration(t.Idle)
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
func (p *printer) server(o *serverOptions, fields expectedFields) {
	if o == nil && fields.none() {
		return
	}
	if o == nil {
		o = new(serverOptions)
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
	o.Timeouts.each(func(name string, value policy.Timeout) {
		timeouts = append(timeouts, "\t\t"+name+" "+formatDuration(caddy.Duration(value)))
	})
	if timeouts != nil {
		lines = slices.Concat(lines, []string{"\ttimeouts {"}, timeouts, []string{"\t}"})
	}
	if o.MaxHeaderSize > 0 {
		lines = append(lines, fmt.Sprintf("\tmax_header_size %d", o.MaxHeaderSize))
	}
	if fields.underscores != nil {
		lines = append(lines, "\texpected_underscore_headers "+strings.Join(fields.underscores, " "))
	}
	if fields.dots != nil {
		lines = append(lines, "\texpected_dot_headers "+strings.Join(fields.dots, " "))
	}
	p.global = append(p.global, append(lines, "}")...)
}
