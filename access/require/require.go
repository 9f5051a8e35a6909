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
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(Require))
	httpcaddyfile.RegisterHandlerDirective("rgate_require", policy.Directive[Require])
}

// Require lets requests pass whose sender has certain rights. It stands behind
// what finds the sender out: `rgate_jwt`, `rgate_api_key`, or any handler that sets
// `{http.auth.user.id}`, such as Caddy's `basic_auth`.
//
// Requests of nobody are answered with 401; those of somebody who lacks a right
// with 403. Everything that is set is required; with nothing set, it is
// enough to be somebody.
type Require struct {
	policy.Base
	policy.SiteIdentity

	// Scopes, of a token or an API key, of which the sender must have all. Default:
	// none.
	Scopes []string `json:"scopes,omitempty" caddyfile:"arg"`

	// Scopes of which the sender must have one at least. Default: none.
	AnyScope []string `json:"any_scope,omitempty"`

	// Roles of which the sender must have one at least. Default: none.
	Roles []string `json:"roles,omitempty"`

	// Users, of a token or another authentication, and consumers of API keys, of
	// which the sender must be one. Default: all clients.
	Users []string `json:"users,omitempty"`

	// Claims that a token must have: for each, its value, or several of which it must
	// have one. A claim that is a list must have the value in it. Dots in a name lead
	// into objects. Default: none.
	Claims map[string]identity.ClaimValues `json:"claims,omitempty"`
}

// Why a request is refused. Clients are not told, except of scopes.
var (
	errNobody  = errors.New("the request is of nobody")
	errNoScope = errors.New("the sender lacks a scope")
	errNoRole  = errors.New("the sender has none of the roles")
	errNoUser  = errors.New("the sender is none of the users")
	errNoClaim = errors.New("the sender's token lacks a claim")
)

// CaddyModule returns the Caddy module information.
func (*Require) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_require",
		New: func() caddy.Module { return new(Require) },
	}
}

// Provision makes the policy ready.
func (p *Require) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "require"); err != nil || p.Off() {
		return err
	}
	return p.StripIdentityInSite(ctx)
}

// Check reports the first thing wrong with the options.
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
			return policy.Optionf("claims."+name, "claim %q has no value to be compared with: use claims: {department: [sales, support]}", name)
		}
	}
	return nil
}

// Validate does what Check does, for Caddy.
func (p *Require) Validate() error { return p.Check() }

// ServeHTTP passes a request on if its sender may do what it asks for.
func (p *Require) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	policy.StripIdentity(r) // unless who has authenticated the sender has done so
	who := identity.Of(r)
	if who == nil {
		identity.Challenge(w.Header(), r)
		p.log(zapcore.DebugLevel, r, "", errNobody)
		return p.Refuse(w, r, http.StatusUnauthorized, errNobody)
	}
	if scopes, err := p.judge(who); err != nil {
		if who.Claims != nil {
			w.Header().Add("WWW-Authenticate", insufficientScope(scopes))
		}
		p.log(zapcore.InfoLevel, r, who.Name(), err)
		return p.Refuse(w, r, http.StatusForbidden, err)
	}
	policy.Introduce(r)
	return next.ServeHTTP(w, r)
}

// judge says why somebody may not pass, if so, and which scopes would be needed.
func (p *Require) judge(who *identity.Identity) (scopes []string, err error) {
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
	case len(p.Users) > 0 && !p.names(who.User) && !p.names(who.Consumer):
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

// names reports whether a user or consumer is among those who may pass.
func (p *Require) names(user string) bool { return user != "" && slices.Contains(p.Users, user) }

// insufficientScope is the challenge for a token that lacks a right (RFC 6750,
// section 3.1).
func insufficientScope(scopes []string) string {
	challenge := `Bearer realm="rgate", error="insufficient_scope"`
	if len(scopes) > 0 {
		challenge += `, scope="` + strings.Join(scopes, " ") + `"`
	}
	return challenge
}

// log says why a request is refused.
func (p *Require) log(level zapcore.Level, r *http.Request, user string, err error) {
	if entry := p.Logger().Check(level, "request refused for lack of rights"); entry != nil {
		entry.Write(zap.Error(err), zap.String("user", user), zap.String("client_ip", policy.ClientAddress(r)))
	}
}

// Interface guards
var (
	_ caddy.Provisioner = (*Require)(nil)
	_ caddy.Validator   = (*Require)(nil)
	_ policy.Module     = (*Require)(nil)
	_ policy.Warner     = (*Require)(nil)
)
