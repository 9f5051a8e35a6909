package apikey

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"

	"github.com/rgate/rgate/access/identity"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(Provider))
}

// Provider is the `rgate_api_key` provider of Caddy's `authentication` handler. The
// handler responds with 401 if no provider accepts the request. This includes requests
// above the rate limit of their key.
type Provider struct {
	Options

	base policy.Base
}

// CaddyModule returns the Caddy module information.
func (*Provider) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.authentication.providers.rgate_api_key",
		New: func() caddy.Module { return new(Provider) },
	}
}

// Provision loads the key file and starts watching it.
func (p *Provider) Provision(ctx caddy.Context) error {
	if err := p.base.Start(ctx, "api_key"); err != nil {
		return err
	}
	if err := p.StripIdentityInSite(ctx); err != nil {
		return err
	}
	return p.start(p.base.Logger())
}

// Validate implements caddy.Validator.
func (p *Provider) Validate() error { return p.Check() }

// Cleanup releases the key file and the shared rate limits.
func (p *Provider) Cleanup() error { return p.stop() }

// Authenticate authenticates a request by its API key. A missing or invalid key is not an
// error.
func (p *Provider) Authenticate(w http.ResponseWriter, r *http.Request) (caddyauth.User, bool, error) {
	trust.StripIdentity(r)
	held, err := p.authenticate(r)
	if err == nil && !p.allow(w.Header(), held) {
		err = errKeyRate
	}
	if err != nil {
		p.log(r, held, err)
		identity.ChallengeAPIKey(w.Header())
		return caddyauth.User{}, false, nil
	}
	p.addIdentity(r, held)
	return caddyauth.User{ID: identity.Of(r).Name()}, true, nil
}

// Interface guards
var (
	_ caddy.Provisioner       = (*Provider)(nil)
	_ caddy.Validator         = (*Provider)(nil)
	_ caddy.CleanerUpper      = (*Provider)(nil)
	_ caddyauth.Authenticator = (*Provider)(nil)
)
