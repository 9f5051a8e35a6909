// Package ipfilter implements the ip_filter policy, which allows or denies requests by
// client IP address.
package ipfilter

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(IPFilter))
	httpcaddyfile.RegisterHandlerDirective("rgate_ip_filter", policy.Directive[IPFilter])
}

// IPFilter is a handler that allows or denies requests by client IP address. Requests
// from denied or unknown addresses are rejected with 403.
//
// The client address is the remote address of the connection. If that is one of the
// server's `trusted_proxies`, the address that the proxy forwards is used.
type IPFilter struct {
	policy.Base

	// The allowed addresses: IP addresses, CIDR ranges, or `private_ranges`, which has
	// the same meaning as in Caddy. Default: all addresses.
	Allow []string `json:"allow,omitempty" caddyfile:"arg"`

	// The denied addresses, in the same format. They take precedence over `allow`.
	// Default: none.
	Deny []string `json:"deny,omitempty"`

	allowed, denied ipSet
}

// Reasons to reject a request. They are logged and not sent to the client.
var (
	errNoAddress  = errors.New("the client's address is unknown")
	errDenied     = errors.New("the client's address is denied")
	errNotAllowed = errors.New("the client's address is not allowed")
)

// CaddyModule returns the Caddy module information.
func (*IPFilter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_ip_filter",
		New: func() caddy.Module { return new(IPFilter) },
	}
}

// Provision parses the lists of addresses.
func (p *IPFilter) Provision(ctx caddy.Context) error {
	err := p.Start(ctx, "ip_filter")
	if err == nil {
		p.allowed, err = ipSetOf("allow", p.Allow)
	}
	if err == nil {
		p.denied, err = ipSetOf("deny", p.Deny)
	}
	return err
}

// Check returns an error for the first invalid option.
func (p *IPFilter) Check() error {
	if !p.Off() && len(p.Allow) == 0 && len(p.Deny) == 0 {
		return options.Errorf("allow", "ip_filter has no effect: set allow or deny")
	}
	if _, err := ipSetOf("allow", p.Allow); err != nil {
		return err
	}
	_, err := ipSetOf("deny", p.Deny)
	return err
}

// Validate implements caddy.Validator.
func (p *IPFilter) Validate() error { return p.Check() }

// ipSetOf parses the list of addresses in an option.
func ipSetOf(option string, list []string) (ipSet, error) {
	var prefixes []netip.Prefix
	for i, text := range list {
		if text == privateRanges {
			prefixes = append(prefixes, privatePrefixes()...)
			continue
		}
		prefix, err := parsePrefix(text)
		if err != nil {
			suggestion := options.Suggest(text, []string{privateRanges})
			return nil, options.Errorf(fmt.Sprintf("%s[%d]", option, i), "invalid address %q in %s%s: %v", text, option, suggestion, err)
		}
		prefixes = append(prefixes, prefix)
	}
	return newIPSet(prefixes), nil
}

// privatePrefixes returns the prefixes of Caddy's `private_ranges`.
func privatePrefixes() (prefixes []netip.Prefix) {
	for _, text := range caddyhttp.PrivateRangesCIDR() {
		// Caddy's list contains addresses without a prefix length.
		if prefix, err := caddyhttp.CIDRExpressionToPrefix(text); err == nil {
			prefixes = append(prefixes, prefix)
		}
	}
	return prefixes
}

// ServeHTTP rejects a request whose client address is not allowed.
func (p *IPFilter) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	address := trust.ClientAddress(r)
	if err := p.authorize(address); err != nil {
		if entry := p.Logger().Check(zapcore.InfoLevel, "request rejected by ip_filter"); entry != nil {
			entry.Write(zap.Error(err), zap.String("client_ip", address))
		}
		return p.Refuse(w, r, http.StatusForbidden, err)
	}
	return next.ServeHTTP(w, r)
}

// authorize returns an error if an address is not allowed.
func (p *IPFilter) authorize(address string) error {
	addr, known := parseIP(address)
	switch {
	case !known:
		return errNoAddress
	case p.denied.has(addr):
		return errDenied
	case len(p.Allow) > 0 && !p.allowed.has(addr):
		return errNotAllowed
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner = (*IPFilter)(nil)
	_ caddy.Validator   = (*IPFilter)(nil)
	_ policy.Module     = (*IPFilter)(nil)
)
