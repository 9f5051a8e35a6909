// Package jwt implements authentication by JSON Web Token (RFC 7519).
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

// JWT is a handler that requires a valid JSON Web Token (RFC 7519) in bearer form (RFC
// 6750). It adds the user to the identity of the request, which later policies and the
// backend use. Requests are rejected with:
//
//   - 401 if the token is missing or invalid
//   - 400 if there are several tokens or the header field is malformed
//   - 503 until the keys of a URL have been fetched for the first time
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

// Provision loads the keys. Keys of a URL are fetched in the background.
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

// Check returns the first invalid option as an *options.Error.
func (p *JWT) Check() error {
	if p.Off() {
		return nil
	}
	return p.Options.Check()
}

// Validate implements caddy.Validator.
func (p *JWT) Validate() error { return p.Check() }

// Cleanup releases the key source.
func (p *JWT) Cleanup() error { return p.verifier.close() }

// ServeHTTP authenticates a request by its token.
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

// logRefusal logs the reason for a rejection. A missing token is logged at debug level,
// because clients often send their first request without credentials.
func logRefusal(logger *zap.Logger, err error) {
	level := zapcore.InfoLevel
	switch err {
	case errNoToken:
		level = zapcore.DebugLevel
	case errKeysMissing:
		level = zapcore.ErrorLevel
	}
	if entry := logger.Check(level, "request rejected by jwt"); entry != nil {
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
