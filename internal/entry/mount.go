// Package entry is what every request of a server passes first if one of rgate's handlers
// is anywhere in it: what must hold for a connection, or for all paths of a site, and not
// only for the requests that reach a certain handler. It needs no configuration.
package entry

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Mount puts the entry in front of all routes of the server that is being provisioned,
// unless it is there. Every handler of rgate calls it in Provision. Outside of a server, it
// does nothing.
func Mount(ctx caddy.Context) { mounted(ctx) }

// mounted returns the entry of the server that is being provisioned, nil if it has none.
//
// Caddy provisions the handlers of a list of routes in place and then compiles the list
// that the server has by that time. So the list can be replaced by one route around it
// while the first of rgate's handlers in it is being provisioned. Its routes keep their
// matchers, groups, metrics and their end (`terminal`), because nothing in them changes.
func mounted(ctx caddy.Context) *entry {
	server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if server == nil {
		return nil
	}
	e := find(server.Routes)
	if e == nil && server.Errors != nil {
		e = find(server.Errors.Routes)
	}
	if e != nil {
		return e
	}
	e = new(entry)
	switch {
	case provisioning(server.Routes):
		e.routes = server.Routes
		server.Routes = e.asRoutes(ctx)
		if server.Errors != nil && len(server.Errors.Routes) > 0 {
			e.errorsFollow = true
			server.Errors.Routes = e.before(server.Errors.Routes)
		}
	case server.Errors != nil && provisioning(server.Errors.Routes):
		e.routes = server.Errors.Routes
		server.Errors.Routes = e.asRoutes(ctx)
	default:
		return nil
	}
	return e
}

// Routes returns a server's own routes, whether the entry stands in front of them or not.
func Routes(server *caddyhttp.Server) caddyhttp.RouteList {
	if e := find(server.Routes); e != nil {
		return e.routes
	}
	return server.Routes
}

// find returns the entry that a list of routes begins with, or nil.
func find(routes caddyhttp.RouteList) *entry {
	if len(routes) == 0 || len(routes[0].Handlers) == 0 {
		return nil
	}
	e, _ := routes[0].Handlers[0].(*entry)
	return e
}

// provisioning reports whether handlers of some route are still to be loaded. A route has
// their JSON until all of them are.
func provisioning(routes caddyhttp.RouteList) bool {
	for i := range routes {
		if routes[i].HandlersRaw != nil {
			return true
		}
	}
	return false
}

// asRoutes returns the entry as a list of routes, in place of those that it holds.
func (e *entry) asRoutes(ctx caddy.Context) caddyhttp.RouteList {
	route := caddyhttp.Route{Handlers: []caddyhttp.MiddlewareHandler{e}}
	_ = route.ProvisionHandlers(ctx, nil) // there is none to load
	return caddyhttp.RouteList{route}
}

// before returns error routes, which are not provisioned yet, behind an entry of theirs.
func (e *entry) before(routes caddyhttp.RouteList) caddyhttp.RouteList {
	return caddyhttp.RouteList{{
		Handlers: []caddyhttp.MiddlewareHandler{errorEntry{e}},
		HandlersRaw: []json.RawMessage{
			caddyconfig.JSONModuleObject(caddyhttp.Subroute{Routes: routes}, "handler", "subroute", nil),
		},
	}}
}
