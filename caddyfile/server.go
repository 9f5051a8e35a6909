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

// serverOptions holds the options of the server. They have the names of the options in
// `servers` of a Caddyfile.
type serverOptions struct {
	// The trusted proxies: IP addresses, CIDR ranges or `private_ranges`. The
	// X-Forwarded-For header of these proxies determines the client IP. Default: none.
	TrustedProxies []string `json:"trusted_proxies,omitempty"`

	// The timeouts for clients.
	Timeouts *serverTimeouts `json:"timeouts,omitempty"`

	// The maximum size of a request header. Larger headers are rejected with 431.
	// Default: 16KiB.
	MaxHeaderSize options.Size `json:"max_header_size,omitempty"`
}

// serverTimeouts holds the timeouts of connections to clients. 0 disables a timeout.
type serverTimeouts struct {
	// The maximum time to read a request header. Default: 1m.
	ReadHeader options.Timeout `json:"read_header,omitempty"`

	// The maximum time to read a request, including the body. Default: no limit.
	ReadBody options.Timeout `json:"read_body,omitempty"`

	// The maximum time between reads of a request body. Default: 1m.
	ReadBodyIdle options.Timeout `json:"read_body_idle,omitempty"`

	// The maximum time to write a response. Default: no limit.
	Write options.Timeout `json:"write,omitempty"`

	// The maximum time between writes of a response. Default: 1m.
	WriteIdle options.Timeout `json:"write_idle,omitempty"`

	// The maximum time to wait for the next request on a connection. Default: 5m.
	Idle options.Timeout `json:"idle,omitempty"`
}

const privateRanges = "private_ranges"

// each calls f with the name and value of each timeout that is set.
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
			err = r.failAt("server.timeouts."+name, "invalid %s: must not be negative: use 0s to disable the timeout, or remove it to use the default", name)
		}
	})
	if o.MaxHeaderSize < 0 || o.MaxHeaderSize > 1<<30 {
		return r.failAt("server.max_header_size", "invalid max_header_size %d: must be at most 1GiB", int64(o.MaxHeaderSize))
	}
	return err
}

// warnings returns the warnings about a valid file: see warnOfGracePeriod, and a warning
// for each timeout that the file disables explicitly, because this applies to all
// routes.
func (r *reader) warnings(doc *document) (warnings []caddyconfig.Warning) {
	warnings = r.warnOfGracePeriod(doc)
	if doc.Server == nil {
		return warnings
	}
	doc.Server.Timeouts.each(func(name string, value options.Timeout) {
		if value == options.TimeoutOff {
			warnings = append(warnings, r.warning("server.timeouts."+name,
				"the timeout is 0, which disables the limit for all routes: remove the option to use the default"))
		}
	})
	return warnings
}

func (r *reader) warning(at, message string) caddyconfig.Warning {
	return caddyconfig.Warning{File: r.file, Line: r.line(at), Directive: at, Message: message}
}

// apply applies the options to a server.
func (o *serverOptions) apply(server *caddyhttp.Server) {
	if o == nil {
		return
	}
	server.MaxHeaderBytes = int(o.MaxHeaderSize)
	if t := o.Timeouts; t != nil {
		// In Caddy, 0 means the default, and a negative duration disables the timeout.
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
		// Read X-Forwarded-For from right to left, up to the first untrusted address:
		// the client may have sent the addresses further left.
		server.TrustedProxiesStrict = 1
	}
}

// server writes the options of the server as the global option servers.
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
			line += " " + text // validated by read
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
