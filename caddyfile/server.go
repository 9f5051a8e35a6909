package caddyfile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/options"
)

// serverOptions are options of the server. They have the names of the global option
// `servers` of a Caddyfile.
type serverOptions struct {
	// The trusted proxies, as IP addresses or ranges, or `private_ranges`. Their
	// X-Forwarded-For field determines the client's address. Default: none.
	TrustedProxies []string `json:"trusted_proxies,omitempty"`

	// The time limits for clients.
	Timeouts *serverTimeouts `json:"timeouts,omitempty"`

	// The maximum size of the header of a request. Larger headers are rejected with 431.
	// Default: Caddy's, 16 KiB.
	MaxHeaderSize options.Size `json:"max_header_size,omitempty"`
}

// serverTimeouts limit how long a slow client can keep a connection busy. 0 disables a
// limit.
type serverTimeouts struct {
	// The time limit for reading the header of a request. Default: Caddy's, 1m.
	ReadHeader options.Timeout `json:"read_header,omitempty"`

	// The time limit for reading a whole request, including the body. Default: no limit.
	ReadBody options.Timeout `json:"read_body,omitempty"`

	// The time limit for a pause in the body of a request. Default: Caddy's, 1m.
	ReadBodyIdle options.Timeout `json:"read_body_idle,omitempty"`

	// The time limit for writing a whole response. Default: no limit.
	Write options.Timeout `json:"write,omitempty"`

	// The time limit for a pause in writing a response. Default: Caddy's, 1m.
	WriteIdle options.Timeout `json:"write_idle,omitempty"`

	// The time limit for the next request on a connection. Default: Caddy's, 5m.
	Idle options.Timeout `json:"idle,omitempty"`
}

const privateRanges = "private_ranges"

// each calls f with the name and value of every timeout that is set.
func (t *serverTimeouts) each(f func(name string, value options.Timeout)) {
	if t == nil {
		return
	}
	for _, timeout := range []struct {
		name  string
		value options.Timeout
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
			return r.failAt(element("server.trusted_proxies", i), "invalid range %q: use an address, a range such as 10.0.0.0/8, or %s", text, privateRanges)
		}
	}
	o.Timeouts.each(func(name string, value options.Timeout) {
		if value < 0 && value != options.TimeoutOff && err == nil {
			err = r.failAt("server.timeouts."+name, "invalid %s: must not be negative: use 0s to disable it, or remove it for its default", name)
		}
	})
	if o.MaxHeaderSize < 0 || o.MaxHeaderSize > 1<<30 {
		return r.failAt("server.max_header_size", "invalid max_header_size %d: must be from 1KiB to 1GiB", int64(o.MaxHeaderSize))
	}
	return err
}

// warnings returns warnings about values that change routes unexpectedly.
func (r *reader) warnings(doc *document) (warnings []caddyconfig.Warning) {
	if doc.Server == nil {
		return nil
	}
	doc.Server.Timeouts.each(func(name string, value options.Timeout) {
		if value == options.TimeoutOff {
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
		// In Caddy, 0 is the default, and a negative duration no limit.
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
		// From the right, to the first untrusted address: addresses further left may be sent
		// by the client, as proxies append theirs.
		server.TrustedProxiesStrict = 1
	}
}

// server writes the options of the server as global options.
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
			line += " " + text // already validated
		}
		lines = append(lines, line, "\ttrusted_proxies_strict")
	}
	var timeouts []string
	o.Timeouts.each(func(name string, value options.Timeout) {
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
