package jwt

import (
	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/access/identity"
	"github.com/rgate/rgate/policy"
)

// RolesSplitUnset implements identity.RolesReader.
func (o *Options) RolesSplitUnset() bool { return o.Roles == nil || o.Roles.Split == nil }

// warn logs RolesWarning if the configuration requires roles outside of a gateway. A
// gateway logs the warning once for all its routes.
func (o *Options) warn(ctx caddy.Context) {
	if policy.ScopeOf(ctx).Level != "" || !o.RolesSplitUnset() {
		return
	}
	found, _ := policy.HasHandler(ctx, func(handler map[string]any) bool {
		roles, _ := handler["roles"].([]any)
		return handler["handler"] == "rgate_require" && len(roles) > 0
	})
	if found {
		ctx.Logger().Warn(identity.RolesWarning)
	}
}

// Interface guards
var (
	_ identity.RolesReader = (*JWT)(nil)
	_ identity.RolesReader = (*Provider)(nil)
)
