package gateway

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
)

// protectIdentity makes sure that nobody can pretend to be somebody else before a
// backend, which takes what certain header fields say for the gateway's word.
func (g *Gateway) protectIdentity(r *http.Request) {
	if g.TrustIdentity {
		policy.KeepIdentity(r)
	} else {
		policy.StripIdentity(r)
	}
}

// introducing is a middleware that tells the backend who was authenticated by a
// handler that is not of rgate, such as Caddy's basic_auth.
func introducing(next caddyhttp.Handler) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		policy.Introduce(r)
		return next.ServeHTTP(w, r)
	}
}
