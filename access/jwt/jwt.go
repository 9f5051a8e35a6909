package jwt

import (
	"cmp"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(JWT))
	caddy.RegisterModule(new(Provider))
	httpcaddyfile.RegisterHandlerDirective("rgate_jwt", policy.Directive[JWT])
}

// JWT requires a valid JSON Web Token (RFC 7519) and adds the user to the identity of the
// request, for later policies and the backend. Tokens are bearer tokens (RFC 6750):
//
//   - 401 without a token or with an invalid one.
//   - 400 with several tokens or a malformed token field.
//   - 503 until the keys of an address are read for the first time.
//
// The reason is logged and not sent to the client.
type JWT struct {
	policy.Base
	Options

	verifier *verifier
}

// CaddyModule returns the Caddy module information.
func (*JWT) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_jwt",
		New: func() caddy.Module { return new(JWT) },
	}
}

// Provision reads the keys. Those of an address are read in the background.
func (p *JWT) Provision(ctx caddy.Context) (err error) {
	if err := p.Start(ctx, "jwt"); err != nil {
		return err
	}
	if p.Off() {
		return nil
	}
	if err := cmp.Or(p.StripIdentityInSite(ctx), p.Check()); err != nil {
		return err
	}
	p.warn(ctx)
	p.verifier, err = newVerifier(&p.Options)
	return err
}

// Check reports the first invalid option as a *policy.Error.
func (p *JWT) Check() error {
	if p.Off() {
		return nil
	}
	return p.Options.Check()
}

// Validate calls Check, for Caddy.
func (p *JWT) Validate() error { return p.Check() }

// Cleanup releases the keys.
func (p *JWT) Cleanup() error { return p.verifier.close() }

// ServeHTTP rejects a request without a valid token.
func (p *JWT) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	trust.StripIdentity(r)
	if err := p.verifier.serve(w, r); err != nil {
		logRefusal(p.Logger(), err)
		return p.Refuse(w, r, p.verifier.challenge(w.Header(), err), err)
	}
	return next.ServeHTTP(w, r)
}

// logRefusal logs why a request is rejected. A missing token has level debug, because it is
// usual for a client's first request.
func logRefusal(logger *zap.Logger, err error) {
	level := zapcore.InfoLevel
	switch err {
	case errNoToken:
		level = zapcore.DebugLevel
	case errKeysMissing:
		level = zapcore.ErrorLevel
	}
	if entry := logger.Check(level, "refusing a request for its token"); entry != nil {
		entry.Write(zap.Error(err))
	}
}

// Interface guards
var (
	_ caddy.Provisioner  = (*JWT)(nil)
	_ caddy.Validator    = (*JWT)(nil)
	_ caddy.CleanerUpper = (*JWT)(nil)
	_ policy.Module      = (*JWT)(nil)
)
