package identity

import (
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
)

// RolesWarning is logged if a route requires roles of tokens and the configuration does
// not set how they are split. Earlier versions split them at spaces.
const RolesWarning = "a string of roles in a token is one role and no longer split at spaces as in earlier versions: " +
	`set split: " " in the option roles of jwt if issuers list several roles in one string, or split: "" if they do not`

// RolesReader is implemented by handlers and authentication providers that read roles
// from tokens.
type RolesReader interface {
	// RolesSplitUnset reports whether the separator of roles is not configured.
	RolesSplitUnset() bool
}

// RolesSplitUnset reports whether a chain contains a RolesReader whose separator of roles
// is not configured.
func RolesSplitUnset(chain []caddyhttp.MiddlewareHandler) bool {
	return slices.ContainsFunc(chain, func(handler caddyhttp.MiddlewareHandler) bool {
		switch handler := handler.(type) {
		case RolesReader:
			return handler.RolesSplitUnset()
		case *caddyauth.Authentication:
			for _, provider := range handler.Providers {
				if provider, ok := provider.(RolesReader); ok && provider.RolesSplitUnset() {
					return true
				}
			}
		}
		return false
	})
}
