package policy

import (
	"encoding/json"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/entry"
)

// HasHandler looks among the handlers of an HTTP configuration that are still to be
// provisioned: is gets the options of each. known is false where a module is
// provisioned by itself, and nobody can tell what else there is.
func HasHandler(ctx caddy.Context, is func(handler map[string]any) bool) (found, known bool) {
	modules := ctx.Modules()
	at := slices.IndexFunc(modules, func(m caddy.Module) bool { _, ok := m.(*caddyhttp.App); return ok })
	if at < 0 {
		return false, false
	}
	var ahead []any
	for _, module := range modules[at:] {
		ahead = append(ahead, module)
	}
	for _, server := range modules[at].(*caddyhttp.App).Servers {
		ahead = append(ahead, entry.Routes(server))
	}
	for _, module := range ahead { // what is within a handler has left its parent's JSON once it is loaded
		encoded, err := json.Marshal(module)
		if err != nil {
			return false, false
		}
		var all any
		if json.Unmarshal(encoded, &all) == nil && anyHandler(all, is) {
			return true, true
		}
	}
	return false, true
}

func anyHandler(value any, is func(map[string]any) bool) bool {
	switch value := value.(type) {
	case []any:
		return slices.ContainsFunc(value, func(one any) bool { return anyHandler(one, is) })
	case map[string]any:
		if _, ok := value["handler"].(string); ok && is(value) {
			return true
		}
		for _, one := range value {
			if anyHandler(one, is) {
				return true
			}
		}
	}
	return false
}

// EachHandler calls see with the name of a handler in its JSON form, and of all that
// are within it or in a named route that it invokes. Policies that are turned off are
// left out. The name of a route that is not known is empty.
func EachHandler(ctx caddy.Context, options json.RawMessage, see func(name string, options map[string]any)) {
	eachHandler(options, see, namedRoutes(ctx))
}

// namedRoutes are the handlers of the routes that others of a configuration invoke. Those
// of one name in several servers count together.
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

func eachHandler(options json.RawMessage, see func(name string, options map[string]any), named map[string][]json.RawMessage) {
	var all any
	if json.Unmarshal(options, &all) != nil {
		return // the handler's own type reports it
	}
	anyHandler(all, func(handler map[string]any) bool {
		name, _ := handler["handler"].(string)
		if off, _ := handler["disabled"].(bool); off && Rank(name) > 0 {
			return false
		}
		see(name, handler)
		if name == "invoke" {
			route, _ := handler["name"].(string)
			inner, ok := named[route]
			if !ok {
				see("", nil) // which may be anything
			}
			named[route] = nil // it may invoke itself
			for _, options := range inner {
				eachHandler(options, see, named)
			}
		}
		return false
	})
}
