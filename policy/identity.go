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

// WithTrustedIdentity returns a context in which policies are to be provisioned whose
// requests keep what they say about their sender.
func WithTrustedIdentity(ctx caddy.Context) caddy.Context {
	ctx.Context = context.WithValue(ctx.Context, trustedIdentityKey{}, true)
	return ctx
}

// IdentityOptions is what modules embed that authenticate or authorise requests.
type IdentityOptions struct {
	// Passes on what clients say about their identity on the paths of the site where no
	// policy authenticates or authorises requests. It is for sites behind a proxy that
	// sets these fields; a gateway has `trust_identity`. Default: false.
	KeepIdentity bool `json:"keep_identity,omitempty"`
}

// StripIdentityInSite makes StripIdentity run first for all requests of the site that is
// being provisioned, also for those that the module which calls it never sees.
func (s *IdentityOptions) StripIdentityInSite(ctx caddy.Context) error {
	inGateway := ScopeOf(ctx).Gateway != ""
	switch {
	case s.KeepIdentity && inGateway:
		return options.Errorf("keep_identity", "keep_identity is for sites without a gateway: set trust_identity of the gateway, or remove keep_identity")
	case s.KeepIdentity || ctx.Value(trustedIdentityKey{}) != nil:
		return nil
	}
	if _, site := entry.Prepare(ctx, "identity", entry.PrepareFunc(trust.StripIdentity)); site != "" && !inGateway {
		ctx.Logger().Warn("header fields about identity, such as X-User-ID, are removed from all requests of this site, also where nothing authenticates: keep_identity passes them on, as earlier versions did there",
			zap.String("site", site))
	}
	return nil
}

// ForwardIdentity tells the backend who was authenticated by a handler that is not of rgate,
// such as Caddy's basic_auth, if nobody else has.
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

// MarkAuthenticated notes that somebody in particular has sent a request. What is kept
// for others, such as a cache, must take it as it takes one with an Authorization
// field, which may have been hidden from the backend.
func MarkAuthenticated(r *http.Request) {
	caddyhttp.SetVar(r.Context(), authenticatedVar, true)
}

// IsAuthenticated reports whether a policy has found out who sent a request.
func IsAuthenticated(r *http.Request) bool {
	return caddyhttp.GetVar(r.Context(), authenticatedVar) != nil
}
