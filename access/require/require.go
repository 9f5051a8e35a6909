// Package require implements the require policy, which authorizes authenticated clients by
// scope, role, user and claim.
package require

import (
	"cmp"
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

// Require is a handler that rejects requests whose client lacks a required scope, role,
// claim or name. It runs after authentication by `rgate_jwt`, `rgate_api_key` or any
// other handler that sets `{http.auth.user.id}`, such as Caddy's `basic_auth`.
//
// Requests without authentication are rejected with 401. Authenticated requests that do
// not meet a requirement are rejected with 403. All options that are set must be
// satisfied. Without options, every authenticated client is accepted.
type Require struct {
	policy.Base
	policy.IdentityOptions

	// The required scopes of the token or API key. The client must have all of them.
	// Default: none.
	Scopes []string `json:"scopes,omitempty" caddyfile:"arg"`

	// The accepted scopes. The client must have at least one of them. Default: none.
	AnyScope []string `json:"any_scope,omitempty"`

	// The accepted roles. The client must have at least one of them. Default: none.
	Roles []string `json:"roles,omitempty"`

	// The accepted users and API key consumers. Default: all.
	Users []string `json:"users,omitempty"`

	// The required claims of the token. Each maps a claim name to an accepted value or a
	// list of accepted values. If the claim is a list, it must contain an accepted value.
	// Dots in a name select members of objects. Default: none.
	Claims map[string]identity.ClaimValues `json:"claims,omitempty"`
}

// Reasons to reject a request. They are logged. Only required scopes are sent to the
// client.
var (
	errNotAuthenticated = errors.New("the request is not authenticated")
	errNoScope          = errors.New("the client lacks a required scope")
	errNoRole           = errors.New("the client has none of the required roles")
	errNoUser           = errors.New("the client is not one of the allowed users")
	errNoClaim          = errors.New("the token lacks a required claim")
)

// CaddyModule returns the Caddy module information.
func (*Require) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_require",
		New: func() caddy.Module { return new(Require) },
	}
}

// Provision makes the site remove identity fields that clients send.
func (p *Require) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "require"); err != nil || p.Off() {
		return err
	}
	return p.StripIdentityInSite(ctx)
}

// Check returns an error for the first invalid option.
func (p *Require) Check() error {
	if err := cmp.Or(
		identity.CheckScopes("scopes", p.Scopes), identity.CheckScopes("any_scope", p.AnyScope),
		identity.CheckNames("roles", p.Roles), identity.CheckNames("users", p.Users),
	); err != nil {
		return err
	}
	for name, values := range p.Claims {
		if name == "" || len(values) == 0 {
			return options.Errorf("claims."+name, "invalid claim %q: must have a name and values, such as claims: {department: [sales, support]}", name)
		}
	}
	return nil
}

// Validate implements caddy.Validator.
func (p *Require) Validate() error { return p.Check() }

// ServeHTTP rejects a request whose client does not meet a requirement.
func (p *Require) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	trust.StripIdentity(r) // in case no authentication handler has done this
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

// authorize returns an error if a client does not meet a requirement. If scopes are
// missing, it also returns the required scopes.
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

// isListed reports whether a user or consumer is in the accepted users.
func (p *Require) isListed(user string) bool { return user != "" && slices.Contains(p.Users, user) }

// insufficientScope returns the WWW-Authenticate challenge for a token that does not meet
// a requirement (RFC 6750, section 3.1).
func insufficientScope(scopes []string) string {
	challenge := `Bearer realm="rgate", error="insufficient_scope"`
	if len(scopes) > 0 {
		challenge += `, scope="` + strings.Join(scopes, " ") + `"`
	}
	return challenge
}

// log logs the reason for a rejection.
func (p *Require) log(level zapcore.Level, r *http.Request, user string, err error) {
	if entry := p.Logger().Check(level, "request rejected by require"); entry != nil {
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
