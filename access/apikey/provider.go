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
	caddy.RegisterModule(new(APIKeyProvider))
}

// APIKeyProvider is `rgate_api_key` as a provider of Caddy's handler `authentication`,
// which responds with 401 if no provider accepts a request. This includes requests above
// the limit of a key.
type APIKeyProvider struct {
	APIKeys

	base policy.Base
}

// CaddyModule returns the Caddy module information.
func (*APIKeyProvider) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.authentication.providers.rgate_api_key",
		New: func() caddy.Module { return new(APIKeyProvider) },
	}
}

// Provision reads the file of keys and starts to watch it.
func (p *APIKeyProvider) Provision(ctx caddy.Context) error {
	if err := p.base.Start(ctx, "api_key"); err != nil {
		return err
	}
	if err := p.StripIdentityInSite(ctx); err != nil {
		return err
	}
	return p.start(p.base.Logger())
}

// Validate reports the first invalid option.
func (p *APIKeyProvider) Validate() error { return p.Check() }

// Cleanup releases the file of keys.
func (p *APIKeyProvider) Cleanup() error { return p.stop() }

// Authenticate authenticates a request by its key. A missing or wrong key is not an error.
func (p *APIKeyProvider) Authenticate(w http.ResponseWriter, r *http.Request) (caddyauth.User, bool, error) {
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
	_ caddy.Provisioner       = (*APIKeyProvider)(nil)
	_ caddy.Validator         = (*APIKeyProvider)(nil)
	_ caddy.CleanerUpper      = (*APIKeyProvider)(nil)
	_ caddyauth.Authenticator = (*APIKeyProvider)(nil)
)
