package policy

import (
	"encoding/json"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/entry"
)

// Ahead looks among the handlers of an HTTP configuration that are still to be
// provisioned: is gets the options of each. known is false where a module is
// provisioned by itself, and nobody can tell what else there is.
func Ahead(ctx caddy.Context, is func(handler map[string]any) bool) (found, known bool) {
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
