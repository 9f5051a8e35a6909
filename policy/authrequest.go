package policy

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// isAuthRequest reports whether a handler is what `forward_auth` makes: a proxy that asks
// whether a request may pass.
func isAuthRequest(handler caddyhttp.MiddlewareHandler) bool {
	proxy, ok := handler.(*reverseproxy.Handler)
	return ok && len(proxy.HandleResponse) > 0 && proxy.Rewrite != nil && proxy.Rewrite.Method == http.MethodGet
}

// isAuthRequestIn is isAuthRequest of a handler in its JSON form.
func isAuthRequestIn(options map[string]any) bool {
	rewrite, _ := options["rewrite"].(map[string]any)
	return options["handle_response"] != nil && rewrite["method"] == http.MethodGet
}
