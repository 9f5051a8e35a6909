package apikey

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/access/identity"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(APIKey))
	httpcaddyfile.RegisterHandlerDirective("rgate_api_key", policy.Directive[APIKey])
}

// APIKey lets those requests pass that carry a valid API key. The others are
// answered with 401, and those above the key's limit with 429.
//
// The backend learns the consumer and its scopes from X-Consumer-Username and
// X-Consumer-Scopes. For `rgate_require`, they are part of the request's identity,
// beside those of a token.
type APIKey struct {
	policy.Base
	APIKeys

	// Whether requests without a key pass too, as nobody's. A wrong key is refused
	// all the same. Default: false.
	Optional bool `json:"optional,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*APIKey) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_api_key",
		New: func() caddy.Module { return new(APIKey) },
	}
}

// Provision reads the file of keys and begins to follow it.
func (p *APIKey) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "api_key"); err != nil || p.Off() {
		return err
	}
	if err := p.StripIdentityInSite(ctx); err != nil {
		return err
	}
	return p.start(p.Logger())
}

// Check reports the first invalid option. It does not read the file.
func (p *APIKey) Check() error {
	if p.Off() {
		return nil
	}
	return p.APIKeys.Check()
}

// Validate calls Check, for Caddy.
func (p *APIKey) Validate() error { return p.Check() }

// Cleanup lets go of the file of keys.
func (p *APIKey) Cleanup() error { return p.stop() }

// ServeHTTP passes a request on if its key is valid.
func (p *APIKey) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	policy.StripIdentity(r)
	held, err := p.judge(r)
	if p.Optional && errors.Is(err, errNoKey) {
		identity.AcceptAPIKey(r)
		return next.ServeHTTP(w, r)
	}
	if err != nil {
		p.log(r, held, err)
		identity.ChallengeAPIKey(w.Header())
		return p.Refuse(w, r, http.StatusUnauthorized, err)
	}
	if !p.spend(w.Header(), held) {
		p.log(r, held, errKeyRate)
		return p.RefuseWithJSON(w, r, http.StatusTooManyRequests, errKeyRate)
	}
	p.admit(r, held)
	return next.ServeHTTP(w, r)
}

// Interface guards
var (
	_ caddy.Provisioner  = (*APIKey)(nil)
	_ caddy.Validator    = (*APIKey)(nil)
	_ caddy.CleanerUpper = (*APIKey)(nil)
	_ policy.Module      = (*APIKey)(nil)
)
