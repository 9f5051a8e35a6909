package jwt

import (
	"cmp"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"

	"github.com/rgate/rgate/access/identity"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

// Provider is the `rgate_jwt` provider of Caddy's `authentication` handler. The handler
// responds with 401 if no provider accepts the request.
type Provider struct {
	Options

	base     policy.Base // provides the logger
	verifier *verifier
}

// CaddyModule returns the Caddy module information.
func (*Provider) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.authentication.providers.rgate_jwt",
		New: func() caddy.Module { return new(Provider) },
	}
}

// Provision loads the keys. Keys of a URL are fetched in the background.
func (p *Provider) Provision(ctx caddy.Context) (err error) {
	if err := p.base.Start(ctx, "jwt"); err != nil {
		return err
	}
	if err := cmp.Or(p.StripIdentityInSite(ctx), p.Check()); err != nil {
		return err
	}
	p.warn(ctx)
	p.verifier, err = newVerifier(&p.Options)
	return err
}

// Validate implements caddy.Validator.
func (p *Provider) Validate() error { return p.Check() }

// Cleanup releases the key source.
func (p *Provider) Cleanup() error { return p.verifier.close() }

// Authenticate authenticates a request by its token. A request without a token is
// accepted if the token is optional.
func (p *Provider) Authenticate(w http.ResponseWriter, r *http.Request) (user caddyauth.User, ok bool, err error) {
	trust.StripIdentity(r)
	if err := p.verifier.serve(w, r); err != nil {
		logRefusal(p.base.Logger(), err)
		p.verifier.challenge(w.Header(), err)
		return user, false, nil
	}
	if who := identity.Of(r); who != nil {
		user.ID = who.Name()
	}
	return user, true, nil
}

// Interface guards
var (
	_ caddy.Provisioner       = (*Provider)(nil)
	_ caddy.Validator         = (*Provider)(nil)
	_ caddy.CleanerUpper      = (*Provider)(nil)
	_ caddyauth.Authenticator = (*Provider)(nil)
)
