// Package entry contains the first handler of each server with rgate handlers. It
// enforces rules for connections and for all paths of a site, including requests that
// no rgate handler receives. It requires no configuration.
package entry

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/shutdown"
)

// Mount mounts the entry before all routes of the server that is being provisioned.
// Every rgate handler calls it in Provision. Further calls, and calls outside of a
// server, have no effect.
func Mount(ctx caddy.Context) { mounted(ctx) }

// mounted returns the entry of the server that is being provisioned, or nil. It mounts
// the entry if necessary.
//
// Caddy provisions the handlers of a list of routes in place and then compiles the
// server's current list. While the first rgate handler is being provisioned, the list
// is therefore replaced with a single route that contains the others. The original
// routes keep their matchers, groups, metrics and `terminal`.
func mounted(ctx caddy.Context) *entry {
	server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if server == nil {
		return nil
	}
	if e := of(server); e != nil {
		return e
	}
	if err := shutdown.Watch(ctx); err != nil {
		ctx.Logger().Warn("the shutdown of this server cannot be observed", zap.Error(err))
	}
	e := &entry{plain: isPlain(ctx, server)}
	switch {
	case provisioning(server.Routes) != nil:
		e.routes = server.Routes
		server.Routes = e.asRoutes(ctx)
		if server.Errors != nil && len(server.Errors.Routes) > 0 {
			e.errorsFollow = true
			server.Errors.Routes = e.before(server.Errors.Routes)
		}
	case server.Errors != nil && provisioning(server.Errors.Routes) != nil:
		e.routes, e.afterFailure = server.Errors.Routes, true
		server.Errors.Routes = e.asRoutes(ctx)
	default:
		e.mountLate(ctx, server)
	}
	return e
}

// mountLate mounts the entry of a server whose rgate handlers are all in named routes.
// Caddy provisions named routes last, after it has compiled the others. Named routes
// and subroutes are compiled for each request, so they can still be changed. In a
// Caddyfile, a site with a host name is a subroute.
func (e *entry) mountLate(ctx caddy.Context, server *caddyhttp.Server) {
	for _, route := range server.NamedRoutes {
		if route.HandlersRaw != nil {
			route.Handlers = append(route.Handlers, e)
		}
	}
	for i := range server.Routes {
		for _, handler := range server.Routes[i].Handlers {
			switch handler := handler.(type) {
			case *caddyhttp.Subroute:
				handler.Routes = append(e.asRoutes(ctx), handler.Routes...)
			case *caddyhttp.Invoke:
			default:
				ctx.Logger().Warn("requests that do not invoke this named route are not protected by rgate: add a handler such as rgate_security to the site itself",
					zap.String("handler", caddy.GetModuleID(handler)), zap.Int("route", i))
				return
			}
		}
	}
}

// Routes returns a server's own routes, even if the entry is mounted.
func Routes(server *caddyhttp.Server) caddyhttp.RouteList {
	if e := first(server.Routes); e != nil {
		return e.routes
	}
	return server.Routes
}

// Expected reports whether the server that is being provisioned has an entry, or a
// later rgate handler that will mount it. Outside of a server, it returns true.
func Expected(ctx caddy.Context) bool {
	server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if server == nil || of(server) != nil {
		return true
	}
	routes := slices.Clone(server.Routes)
	for _, route := range server.NamedRoutes {
		routes = append(routes, *route)
	}
	return slices.ContainsFunc(routes, func(route caddyhttp.Route) bool {
		return slices.ContainsFunc(route.HandlersRaw, func(raw json.RawMessage) bool {
			return bytes.Contains(raw, []byte(`"rgate`))
		})
	})
}

// of returns the entry of a server, or nil.
func of(server *caddyhttp.Server) *entry {
	if e := first(server.Routes); e != nil {
		return e
	}
	if server.Errors != nil {
		if e := first(server.Errors.Routes); e != nil {
			return e
		}
	}
	for _, route := range server.NamedRoutes {
		if e := first(caddyhttp.RouteList{*route}); e != nil {
			return e
		}
	}
	return nil
}

// first returns the entry at the beginning of a list of routes, or nil.
func first(routes caddyhttp.RouteList) *entry {
	if len(routes) == 0 || len(routes[0].Handlers) == 0 {
		return nil
	}
	e, _ := routes[0].Handlers[0].(*entry)
	return e
}

// provisioning returns the first route of a list that is not completely provisioned, or
// nil. A route keeps the JSON of its handlers until all of them are loaded.
func provisioning(routes caddyhttp.RouteList) *caddyhttp.Route {
	for i := range routes {
		if routes[i].HandlersRaw != nil {
			return &routes[i]
		}
	}
	return nil
}

// asRoutes returns a list of routes that contains only the entry.
func (e *entry) asRoutes(ctx caddy.Context) caddyhttp.RouteList {
	route := caddyhttp.Route{Handlers: []caddyhttp.MiddlewareHandler{e}}
	_ = route.ProvisionHandlers(ctx, nil) // there are no modules to load
	return caddyhttp.RouteList{route}
}

// before returns error routes, not yet provisioned, behind their own entry.
func (e *entry) before(routes caddyhttp.RouteList) caddyhttp.RouteList {
	return caddyhttp.RouteList{{
		Handlers: []caddyhttp.MiddlewareHandler{errorEntry{e}},
		HandlersRaw: []json.RawMessage{
			caddyconfig.JSONModuleObject(caddyhttp.Subroute{Routes: routes}, "handler", "subroute", nil),
		},
	}}
}
