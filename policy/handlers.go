package policy

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/entry"
)

// HasHandler reports whether the HTTP configuration that is being provisioned has a
// handler whose options match. known is false without an HTTP configuration.
func HasHandler(ctx caddy.Context, matches func(handler map[string]any) bool) (found, known bool) {
	modules := ctx.Modules()
	at := slices.IndexFunc(modules, func(m caddy.Module) bool { _, ok := m.(*caddyhttp.App); return ok })
	if at < 0 {
		return false, false
	}
	var parts []any
	for _, module := range modules[at:] {
		parts = append(parts, module)
	}
	for _, server := range modules[at].(*caddyhttp.App).Servers {
		parts = append(parts, entry.Routes(server))
	}
	for _, module := range parts { // a loaded handler is no longer in the JSON of its parent
		encoded, err := json.Marshal(module)
		if err != nil {
			return false, false
		}
		var all any
		if json.Unmarshal(encoded, &all) == nil && anyHandler(all, matches) {
			return true, true
		}
	}
	return false, true
}

func anyHandler(value any, matches func(map[string]any) bool) bool {
	switch value := value.(type) {
	case []any:
		return slices.ContainsFunc(value, func(one any) bool { return anyHandler(one, matches) })
	case map[string]any:
		if _, ok := value["handler"].(string); ok && matches(value) {
			return true
		}
		for _, one := range value {
			if anyHandler(one, matches) {
				return true
			}
		}
	}
	return false
}

// EachHandler calls visit for a handler in JSON form, for the handlers in its options,
// and for those in the named routes that it invokes. Disabled policies are omitted. For
// an unknown named route, the name is empty.
func EachHandler(ctx caddy.Context, options json.RawMessage, visit func(name string, options map[string]any)) {
	eachHandler(options, visit, namedRoutes(ctx))
}

// namedRoutes returns the handlers of the named routes. Routes with the same name on
// several servers are merged.
func namedRoutes(ctx caddy.Context) map[string][]json.RawMessage {
	named := make(map[string][]json.RawMessage)
	for _, module := range ctx.Modules() {
		app, ok := module.(*caddyhttp.App)
		if !ok {
			continue
		}
		for _, server := range app.Servers {
			for name, route := range server.NamedRoutes {
				if route != nil {
					named[name] = append(named[name], route.HandlersRaw...)
				}
			}
		}
	}
	return named
}

func eachHandler(options json.RawMessage, visit func(name string, options map[string]any), named map[string][]json.RawMessage) {
	var all any
	if json.Unmarshal(options, &all) != nil {
		return // provisioning reports the error
	}
	anyHandler(all, func(handler map[string]any) bool {
		name, _ := handler["handler"].(string)
		if off, _ := handler["disabled"].(bool); off && Rank(name) > 0 {
			return false
		}
		visit(name, handler)
		if name == "invoke" {
			route, _ := handler["name"].(string)
			inner, ok := named[route]
			if !ok {
				visit("", nil) // the route may contain any handler
			}
			named[route] = nil // a route may invoke itself
			for _, options := range inner {
				eachHandler(options, visit, named)
			}
		}
		return false
	})
}

// isAuthRequest reports whether a handler has the form that `forward_auth` generates: a
// proxy that requests authorization from an external service.
func isAuthRequest(handler caddyhttp.MiddlewareHandler) bool {
	proxy, ok := handler.(*reverseproxy.Handler)
	return ok && len(proxy.HandleResponse) > 0 && proxy.Rewrite != nil && proxy.Rewrite.Method == http.MethodGet
}

// isAuthRequestIn is like isAuthRequest, but for a handler in JSON form.
func isAuthRequestIn(options map[string]any) bool {
	rewrite, _ := options["rewrite"].(map[string]any)
	return options["handle_response"] != nil && rewrite["method"] == http.MethodGet
}
