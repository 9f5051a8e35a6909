package policy

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/entry"
)

// checkReached returns an error if a policy in front of a backend does not receive all
// requests of its site, or would respond to requests that a later handler rejects.
//
// In a Caddyfile, such a policy is sorted directly before `reverse_proxy`, after
// `handle`, `handle_path`, `route` and `invoke`, which may contain a proxy. It is not
// sorted before them, because it would then apply to `respond` and similar directives.
func checkReached(ctx caddy.Context, handler string) error {
	if !kindOf(handler).atBackend || ScopeOf(ctx).Level != "" {
		return nil
	}
	before, after := siblings(ctx, handler)
	for _, sibling := range before {
		if sibling.takes(ctx) {
			return fmt.Errorf("%s does not receive requests that a preceding block (handle, handle_path, route or invoke) handles: "+
				"move it into the block, next to reverse_proxy, and add a separate block for other requests", handler)
		}
	}
	if !ReplacesBackend(handler) {
		return nil
	}
	for _, sibling := range after {
		if name := sibling.refuses(ctx); name != "" {
			return fmt.Errorf("%s would respond before %s can reject requests: "+
				"move it after %[2]s, or, if %[2]s is in a gateway, into that gateway", handler, name)
		}
	}
	return nil
}

// sibling is a handler in the same list of routes, in JSON form or provisioned.
type sibling struct {
	raw     json.RawMessage
	handler caddyhttp.MiddlewareHandler
	always  bool // the route matches every request
}

// siblings returns the handlers before and after the handler that is being provisioned.
func siblings(ctx caddy.Context, name string) (before, after []sibling) {
	modules := ctx.Modules() // the last module is the handler itself
	if len(modules) < 2 {
		return nil, nil
	}
	var lists []caddyhttp.RouteList
	switch parent := modules[len(modules)-2].(type) {
	case *caddyhttp.Subroute:
		lists = append(lists, parent.Routes)
		if parent.Errors != nil {
			lists = append(lists, parent.Errors.Routes)
		}
	case *caddyhttp.App:
		if server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); server != nil {
			lists = append(lists, entry.Routes(server))
		}
	}
	for _, routes := range lists {
		current := slices.IndexFunc(routes, func(route caddyhttp.Route) bool { return route.HandlersRaw != nil })
		if current < 0 {
			continue
		}
		for i := range routes[:current] {
			route := &routes[i]
			for _, handler := range route.Handlers {
				if !route.Terminal { // terminal routes are ordered intentionally
					before = append(before, sibling{handler: handler, always: len(route.MatcherSets) == 0})
				}
			}
		}
		found := false
		for i := range routes[current:] {
			route := &routes[current+i]
			for _, raw := range route.HandlersRaw {
				switch {
				case !found && nameIn(raw) == name:
					found = true
				case !found:
					before = append(before, sibling{raw: raw, always: len(route.MatcherSets)+len(route.MatcherSetsRaw) == 0})
				default:
					after = append(after, sibling{raw: raw})
				}
			}
		}
		break
	}
	return before, after
}

func nameIn(raw json.RawMessage) string {
	var handler struct {
		Handler string `json:"handler"`
	}
	_ = json.Unmarshal(raw, &handler) // provisioning reports the error
	return handler.Handler
}

// takes reports whether the sibling is a block that sends requests to a backend, so
// that later handlers do not receive them.
func (s *sibling) takes(ctx caddy.Context) bool {
	if s.handler == nil {
		name := nameIn(s.raw)
		return (name == "subroute" || name == "invoke") && s.takesRaw(ctx, s.raw)
	}
	switch block := s.handler.(type) {
	case *caddyhttp.Subroute:
		return s.takesRoutes(ctx, block.Routes)
	case *caddyhttp.Invoke:
		return s.takesRaw(ctx, invokeJSON(block))
	}
	return false
}

func invokeJSON(invoke *caddyhttp.Invoke) json.RawMessage {
	encoded, _ := json.Marshal(map[string]string{"handler": "invoke", "name": invoke.Name}) // a map of strings can always be encoded
	return encoded
}

func (s *sibling) takesRoutes(ctx caddy.Context, routes caddyhttp.RouteList) bool {
	for i := range routes {
		for _, handler := range routes[i].Handlers {
			switch inner := handler.(type) {
			case *caddyhttp.Subroute:
				if s.takesRoutes(ctx, inner.Routes) {
					return true
				}
			case *caddyhttp.Invoke:
				if s.takesRaw(ctx, invokeJSON(inner)) {
					return true
				}
			default:
				if s.ends(caddy.GetModuleName(handler), isAuthRequest(handler)) {
					return true
				}
			}
		}
	}
	return false
}

func (s *sibling) takesRaw(ctx caddy.Context, raw json.RawMessage) (takes bool) {
	EachHandler(ctx, raw, func(name string, options map[string]any) {
		takes = takes || s.ends(name, isAuthRequestIn(options))
	})
	return takes
}

// ends reports whether a handler in the block sends requests to a backend, or responds
// if the block matches every request.
func (s *sibling) ends(name string, auth bool) bool {
	switch name {
	case "reverse_proxy", "rgate":
		return !auth
	case "static_response", "file_server", "error":
		return s.always
	}
	return false
}

// refuses returns the name of the handler in a sibling that rejects requests, or an
// empty string.
func (s *sibling) refuses(ctx caddy.Context) (refuser string) {
	EachHandler(ctx, s.raw, func(name string, options map[string]any) {
		status := fmt.Sprint(options["status_code"])
		abort, _ := options["abort"].(bool)
		switch {
		case refuser != "":
		case Authorizes(name), name == "reverse_proxy" && isAuthRequestIn(options),
			(name == "static_response" || name == "error") && (abort || status == "401" || status == "403"):
			refuser = name
		}
	})
	return refuser
}
