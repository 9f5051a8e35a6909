// Package require implements the require policy, which authorizes authenticated clients by
// scope, role, user and claim.
package require

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rgate/rgate/access/identity"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(Require))
	httpcaddyfile.RegisterHandlerDirective("rgate_require", policy.Directive[Require])
}

// Require rejects requests whose client lacks certain rights. It runs after authentication
// by `rgate_jwt`, `rgate_api_key`, or any handler that sets `{http.auth.user.id}`, such as
// Caddy's `basic_auth`.
//
// Requests that are not authenticated get a 401 response, those that lack a right a 403
// response. All options that are set must be fulfilled. Without options, any authenticated
// client is accepted.
type Require struct {
	policy.Base
	policy.IdentityOptions

	// The scopes of a token or an API key that the client must all have. Default: none.
	Scopes []string `json:"scopes,omitempty" caddyfile:"arg"`

	// The scopes of which the client must have at least one. Default: none.
	AnyScope []string `json:"any_scope,omitempty"`

	// The roles of which the client must have at least one. Default: none.
	Roles []string `json:"roles,omitempty"`

	// The accepted users, of a token or another authentication, and consumers of API keys.
	// Default: all.
	Users []string `json:"users,omitempty"`

	// The required claims of a token: for each name, a value or several alternatives. A
	// claim that is a list must contain the value. Dots in a name select members of
	// objects. Default: none.
	Claims map[string]identity.ClaimValues `json:"claims,omitempty"`
}

// Reasons to reject a request. They are logged; only missing scopes are sent to the client.
var (
	errNotAuthenticated = errors.New("the request is not authenticated")
	errNoScope          = errors.New("the client lacks a scope")
	errNoRole           = errors.New("the client has none of the roles")
	errNoUser           = errors.New("the client is none of the users")
	errNoClaim          = errors.New("the token lacks a claim")
)

// CaddyModule returns the Caddy module information.
func (*Require) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_require",
		New: func() caddy.Module { return new(Require) },
	}
}

// Provision prepares the policy.
func (p *Require) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "require"); err != nil || p.Off() {
		return err
	}
	return p.StripIdentityInSite(ctx)
}

// Check reports the first invalid option.
func (p *Require) Check() error {
	for _, list := range []struct {
		option string
		values []string
		valid  func(string) bool
		want   string
	}{
		{"scopes", p.Scopes, identity.IsScope, "without spaces and quotes"},
		{"any_scope", p.AnyScope, identity.IsScope, "without spaces and quotes"},
		{"roles", p.Roles, identity.IsPrintable, "of printable characters"},
		{"users", p.Users, identity.IsPrintable, "of printable characters"},
	} {
		if err := identity.CheckNames(list.option, list.values, list.valid, list.want); err != nil {
			return err
		}
	}
	for name, values := range p.Claims {
		if name == "" || len(values) == 0 {
			return options.Errorf("claims."+name, "claim %q has no value to be compared with: use claims: {department: [sales, support]}", name)
		}
	}
	return nil
}

// Validate calls Check, for Caddy.
func (p *Require) Validate() error { return p.Check() }

// ServeHTTP rejects a request whose client lacks a right.
func (p *Require) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	trust.StripIdentity(r) // unless authentication has done so
	who := identity.Of(r)
	if who == nil {
		identity.Challenge(w.Header(), r)
		p.log(zapcore.DebugLevel, r, "", errNotAuthenticated)
		return p.Refuse(w, r, http.StatusUnauthorized, errNotAuthenticated)
	}
	if scopes, err := p.authorize(who); err != nil {
		if who.Claims != nil {
			w.Header().Add("WWW-Authenticate", insufficientScope(scopes))
		}
		p.log(zapcore.InfoLevel, r, who.Name(), err)
		return p.Refuse(w, r, http.StatusForbidden, err)
	}
	policy.ForwardIdentity(r)
	return next.ServeHTTP(w, r)
}

// authorize returns why a client is rejected, and the scopes that it needs.
func (p *Require) authorize(who *identity.Identity) (scopes []string, err error) {
	for _, scope := range p.Scopes {
		if !slices.Contains(who.Scopes, scope) {
			return p.Scopes, errNoScope
		}
	}
	switch {
	case len(p.AnyScope) > 0 && !intersect(p.AnyScope, who.Scopes):
		return p.AnyScope, errNoScope
	case len(p.Roles) > 0 && !intersect(p.Roles, who.Roles):
		return nil, errNoRole
	case len(p.Users) > 0 && !p.isListed(who.User) && !p.isListed(who.Consumer):
		return nil, errNoUser
	}
	for name, values := range p.Claims {
		if claim, ok := who.Claim(name); !ok || !values.Match(claim) {
			return nil, fmt.Errorf("%w: %s", errNoClaim, name)
		}
	}
	return nil, nil
}

// intersect reports whether two lists have an element in common.
func intersect(a, b []string) bool {
	return slices.ContainsFunc(a, func(one string) bool { return slices.Contains(b, one) })
}

// Warnings implements policy.Warner.
func (p *Require) Warnings(chain []caddyhttp.MiddlewareHandler) []string {
	if len(p.Roles) == 0 || !identity.RolesSplitUnset(chain) {
		return nil
	}
	return []string{identity.RolesWarning}
}

// isListed reports whether a user or consumer is one of the accepted users.
func (p *Require) isListed(user string) bool { return user != "" && slices.Contains(p.Users, user) }

// insufficientScope returns the challenge for a token that lacks a right (RFC 6750, section
// 3.1).
func insufficientScope(scopes []string) string {
	challenge := `Bearer realm="rgate", error="insufficient_scope"`
	if len(scopes) > 0 {
		challenge += `, scope="` + strings.Join(scopes, " ") + `"`
	}
	return challenge
}

// log logs why a request is rejected.
func (p *Require) log(level zapcore.Level, r *http.Request, user string, err error) {
	if entry := p.Logger().Check(level, "request rejected: the client lacks a right"); entry != nil {
		entry.Write(zap.Error(err), zap.String("user", user), zap.String("client_ip", trust.ClientAddress(r)))
	}
}

// Interface guards
var (
	_ caddy.Provisioner = (*Require)(nil)
	_ caddy.Validator   = (*Require)(nil)
	_ policy.Module     = (*Require)(nil)
	_ policy.Warner     = (*Require)(nil)
)
