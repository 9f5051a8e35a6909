package gateway

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

// provisionFields decides which fields of requests reach backends, which believe what
// some of them say about the client. The logger is not sampled: each field is logged once.
func (g *Gateway) provisionFields(ctx caddy.Context) {
	keep := make([]string, len(g.KeepFields))
	for i, name := range g.KeepFields {
		keep[i] = http.CanonicalHeaderKey(name)
	}
	g.fields = &trust.FieldFilter{TrustIdentity: g.TrustIdentity, Relayed: true, Keep: keep, Logger: ctx.Logger()}
	trust.MountFilter(ctx, keep...)
}

// checkKeepFields reports a name in keep_fields that has no effect.
func (g *Gateway) checkKeepFields() error {
	for i, name := range g.KeepFields {
		if trust.IsRelayField(name) {
			continue
		}
		at := fmt.Sprintf("keep_fields[%d]", i)
		if trust.IsReplacedField(name) {
			return problemf(at, "invalid field %q: the proxy sets it itself: add the proxy before the gateway to trusted_proxies of the server", name)
		}
		return problemf(at, "invalid field %q%s: must be one that the gateway removes or sets, such as %s", name,
			options.Suggest(name, trust.RelayFields), strings.Join(trust.RelayFields[:3], ", "))
	}
	return nil
}

// introducing is a middleware that tells the backend who was authenticated by a
// handler that is not of rgate, such as Caddy's basic_auth.
func introducing(next caddyhttp.Handler) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		policy.ForwardIdentity(r)
		return next.ServeHTTP(w, r)
	}
}
