package access

import (
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"

	"github.com/rgate/rgate/policy"
)

// rolesWarning is logged at the start where roles are required of tokens and the
// configuration says nothing of splitting them, which earlier versions did at spaces.
const rolesWarning = "a role that a token has as one text is one role, which is not split at spaces any more as it was in earlier versions: " +
	`set split: " " in the option roles of jwt if issuers list several roles in one text, or split: "" if they do not`

// leavesSplit reports whether the options say nothing of splitting roles.
func (o *JWTOptions) leavesSplit() bool { return o.Roles == nil || o.Roles.Split == nil }

// warn logs the warning outside of a gateway, which collects those of its routes.
func (o *JWTOptions) warn(ctx caddy.Context) {
	if policy.Standing(ctx).Level != "" || !o.leavesSplit() {
		return
	}
	found, _ := policy.Ahead(ctx, func(handler map[string]any) bool {
		roles, _ := handler["roles"].([]any)
		return handler["handler"] == "rgate_require" && len(roles) > 0
	})
	if found {
		ctx.Logger().Warn(rolesWarning)
	}
}

// Warnings implements policy.Warner.
func (p *Require) Warnings(chain []caddyhttp.MiddlewareHandler) []string {
	if len(p.Roles) == 0 || !slices.ContainsFunc(chain, func(handler caddyhttp.MiddlewareHandler) bool {
		switch handler := handler.(type) {
		case *JWT:
			return handler.leavesSplit()
		case *caddyauth.Authentication:
			for _, provider := range handler.Providers {
				if provider, ok := provider.(*JWTProvider); ok && provider.leavesSplit() {
					return true
				}
			}
		}
		return false
	}) {
		return nil
	}
	return []string{rolesWarning}
}

// Interface guard
var _ policy.Warner = (*Require)(nil)
