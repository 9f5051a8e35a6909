package policy

import (
	"context"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/entry"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/trust"
)

type trustedIdentityKey struct{}

// WithTrustedIdentity returns a context for provisioning policies that trust the
// identity fields of their clients.
func WithTrustedIdentity(ctx caddy.Context) caddy.Context {
	ctx.Context = context.WithValue(ctx.Context, trustedIdentityKey{}, true)
	return ctx
}

// IdentityOptions holds the identity options of modules that authenticate or authorize
// requests. The modules embed it.
type IdentityOptions struct {
	// Whether to keep identity fields, such as X-User-ID, in requests that no policy
	// authenticates or authorizes. Set it for sites behind a proxy that sets these
	// fields. A gateway has the option `trust_identity` instead. Default: false.
	KeepIdentity bool `json:"keep_identity,omitempty"`
}

// StripIdentityInSite makes trust.StripIdentity run first for all requests of the site
// that is being provisioned, including requests that the calling module does not
// receive.
func (s *IdentityOptions) StripIdentityInSite(ctx caddy.Context) error {
	inGateway := ScopeOf(ctx).Gateway != ""
	switch {
	case s.KeepIdentity && inGateway:
		return options.Errorf("keep_identity", "keep_identity is not supported in a gateway: set trust_identity of the gateway, or remove keep_identity")
	case s.KeepIdentity || ctx.Value(trustedIdentityKey{}) != nil:
		return nil
	}
	if _, site := entry.Prepare(ctx, "identity", entry.PrepareFunc(trust.StripIdentity)); site != "" && !inGateway {
		ctx.Logger().Warn("identity fields such as X-User-ID are removed from all requests of this site, including paths without authentication: set keep_identity to forward them there, as earlier versions did",
			zap.String("site", site))
	}
	return nil
}

// ForwardIdentity sets X-User-ID to the user that another handler, such as Caddy's
// basic_auth, has authenticated, unless a policy has set the field.
func ForwardIdentity(r *http.Request) {
	if _, known := r.Header[trust.HeaderUserID]; known {
		return
	}
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		if user, ok := repl.GetString("http.auth.user.id"); ok && user != "" {
			r.Header[trust.HeaderUserID] = []string{user}
		}
	}
}

const authenticatedVar = "rgate.authenticated"

// MarkAuthenticated marks a request as authenticated. Caches must handle it like a
// request with an Authorization field, because the field may have been removed.
func MarkAuthenticated(r *http.Request) {
	caddyhttp.SetVar(r.Context(), authenticatedVar, true)
}

// IsAuthenticated reports whether MarkAuthenticated has marked a request.
func IsAuthenticated(r *http.Request) bool {
	return caddyhttp.GetVar(r.Context(), authenticatedVar) != nil
}
