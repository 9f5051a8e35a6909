// Package apikey implements authentication by API key.
package apikey

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/access/identity"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(APIKey))
	httpcaddyfile.RegisterHandlerDirective("rgate_api_key", policy.Directive[APIKey])
}

// APIKey is a handler that requires a valid API key. Requests without one are rejected
// with 401, requests above the rate limit of their key with 429.
//
// The backend receives the consumer and its scopes in X-Consumer-Username and
// X-Consumer-Scopes. `rgate_require` reads them from the identity of the request, merged
// with the identity from a token.
type APIKey struct {
	policy.Base
	Options

	// Whether requests without a key are accepted. Invalid keys are always rejected.
	// Default: false.
	Optional bool `json:"optional,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*APIKey) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_api_key",
		New: func() caddy.Module { return new(APIKey) },
	}
}

// Provision loads the key file and starts watching it.
func (p *APIKey) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "api_key"); err != nil || p.Off() {
		return err
	}
	if err := p.StripIdentityInSite(ctx); err != nil {
		return err
	}
	return p.start(p.Logger())
}

// Check returns an error for the first invalid option. It does not read the key file.
func (p *APIKey) Check() error {
	if p.Off() {
		return nil
	}
	return p.Options.Check()
}

// Validate implements caddy.Validator.
func (p *APIKey) Validate() error { return p.Check() }

// Cleanup releases the key file and the shared rate limits.
func (p *APIKey) Cleanup() error { return p.stop() }

// ServeHTTP authenticates a request by its API key and enforces the key's rate limit.
func (p *APIKey) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	trust.StripIdentity(r)
	held, err := p.authenticate(r)
	if p.Optional && errors.Is(err, errNoKey) {
		identity.AcceptAPIKey(r)
		return next.ServeHTTP(w, r)
	}
	if err != nil {
		p.log(r, held, err)
		identity.ChallengeAPIKey(w.Header())
		return p.Refuse(w, r, http.StatusUnauthorized, err)
	}
	if !p.allow(w.Header(), held) {
		p.log(r, held, errKeyRate)
		return p.RefuseWithJSON(w, r, http.StatusTooManyRequests, errKeyRate)
	}
	p.addIdentity(r, held)
	return next.ServeHTTP(w, r)
}

// Interface guards
var (
	_ caddy.Provisioner  = (*APIKey)(nil)
	_ caddy.Validator    = (*APIKey)(nil)
	_ caddy.CleanerUpper = (*APIKey)(nil)
	_ policy.Module      = (*APIKey)(nil)
)
