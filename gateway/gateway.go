// Package gateway provides the HTTP handler rgate, an API gateway for Docker containers. It
// routes requests to backends and runs policies in a fixed order.
package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/rgate/rgate/dockerupstreams"
	"github.com/rgate/rgate/gateway/operations"
	"github.com/rgate/rgate/gateway/routing"
	"github.com/rgate/rgate/gateway/upstream"
	"github.com/rgate/rgate/internal/entry"
	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/internal/logging"
	"github.com/rgate/rgate/internal/pause"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

func init() {
	caddy.RegisterModule(Gateway{})
}

// CaddyModule returns the Caddy module information.
func (Gateway) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate",
		New: func() caddy.Module { return new(Gateway) },
	}
}

const defaultName = "rgate"

// state is the runtime state of a gateway.
type state struct {
	router   *routing.Router
	routes   []*Route // with inherited options
	stats    *stats.Handle
	unrouted *stats.Series
	registry *operations.Registry // nil: instances cannot register
	reporter *operations.Reporter

	// The endpoints, which take precedence over routes.
	endpoints []policy.Endpoint

	// The filter of request fields.
	fields *trust.FieldFilter

	// The gateway's policies that apply to every response, even if no route matches.
	everyResponse []orderedHandler

	warnings warnings // cleared after provisioning
	dropped  *logging.OnceEach[droppedUpgrade]

	// The gateway's ip_filter policies, if they apply to the statistics page.
	pageFilters []orderedHandler

	// The request fields that the gateway's handlers set.
	fieldSets map[trust.FieldSet]struct{}

	logger *zap.Logger
}

// Provision sets up the gateway. It does not wait for Docker.
func (g *Gateway) Provision(ctx caddy.Context) error {
	if err := g.Check(); err != nil {
		return err
	}
	g.provisionFields(ctx)
	if err := trust.CheckFields(ctx, g); err != nil {
		return err
	}
	g.dropped = new(logging.OnceEach[droppedUpgrade])
	if g.TrustIdentity {
		ctx = policy.WithTrustedIdentity(ctx)
	}
	if g.Name == "" {
		g.Name = defaultName
	}
	if g.Stats == nil {
		g.Stats = new(stats.Config)
	}
	g.logger = logging.Sampled(ctx.Logger())

	var err error
	if g.stats, err = g.Stats.Start(ctx, g.Name); err != nil {
		return fmt.Errorf("starting statistics: %w", err)
	}
	config, _ := json.Marshal(g) // provisioning clears the handlers
	g.stats.RedactParams(policy.SecretsIn(config).Parameters)
	g.unrouted = g.stats.Series(stats.DefaultRoute, stats.NoBackend)
	if g.Operations != nil && g.Operations.Registration != nil {
		if g.registry, err = operations.AcquireRegistry(g.Name); err != nil {
			return err
		}
	}
	if err := g.provisionEndpoints(ctx); err != nil {
		return err
	}
	backends, used := make(map[string]*Backend, len(g.Backends)), make(map[string]bool)
	g.markFallbacks(used) // provisioning clears the handlers
	for _, b := range g.Backends {
		if err := b.provision(g.scope(ctx, "backend", b.Name), g); err != nil {
			return err
		}
		backends[b.Name] = b
	}
	if err := g.provisionRoutes(ctx, backends, used); err != nil {
		return err
	}
	if err := g.startReporter(ctx); err != nil {
		return err
	}
	if err := dockerupstreams.RegisterMetrics(ctx); err != nil {
		return fmt.Errorf("registering the metrics of Docker: %w", err)
	}
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		server.RegisterOnStop(g.awaitRequests)
	}
	return nil
}

// awaitRequests waits at the end of the process for the requests of replaced
// configurations. Caddy waits for these only if they were replaced within the grace
// period. ctx ends with the grace period.
func (g *Gateway) awaitRequests(ctx context.Context) error {
	if _, limited := ctx.Deadline(); !limited || !caddy.Exiting() {
		return nil
	}
	for {
		open := int64(-upstream.OpenStreams()) // these are closed at the end
		for _, n := range g.stats.InFlight() {
			open += n
		}
		if open <= 0 || !pause.For(ctx, 50*time.Millisecond) {
			return nil
		}
	}
}

// startReporter starts the reporter of the operations endpoints.
func (g *Gateway) startReporter(ctx caddy.Context) error {
	g.reporter = &operations.Reporter{Gateway: g.Name, Backends: make([]operations.Backend, len(g.Backends)), Stats: g.stats, Registry: g.registry}
	for i, b := range g.Backends {
		g.reporter.Backends[i] = operations.Backend{Name: b.Name, Scheme: b.Scheme, Register: b.Register, Service: b.service}
	}
	return g.reporter.Start(ctx, g.Operations)
}

// provisionRoutes provisions all routes. used marks the backends that are in use
// without a route.
func (g *Gateway) provisionRoutes(ctx caddy.Context, backends map[string]*Backend, used map[string]bool) error {
	common, err := loadHandlers(g.scope(ctx, "gateway", ""), g, "HandlersRaw", g.HandlersRaw)
	if err != nil {
		return fmt.Errorf("loading the gateway's handlers: %w", err)
	}
	g.addFieldSets(common)
	ofGroups := make(map[*Group][]loadedHandler)
	g.warnings = make(warnings)
	g.everyResponse = everyResponseIn([][]loadedHandler{common})
	g.filterStatsPage(common)
	var routes []*Route
	var matchers []*routing.Route
	all := g.resolvedRoutes()
	names := routesByGroup(all)
	for _, rt := range all {
		levels := [][]loadedHandler{common}
		for i, group := range rt.groups {
			if _, ok := ofGroups[group]; !ok {
				scope := policy.WithScope(ctx, policy.Scope{Gateway: g.Name, Level: "group", Name: group.PathPrefix, Routes: names[group], Legacy: g.Legacy})
				if ofGroups[group], err = loadHandlers(scope, group, "HandlersRaw", group.HandlersRaw); err != nil {
					return fmt.Errorf("loading the handlers of group %s: %w", cmp.Or(group.PathPrefix, rt.groupPath(i)), err)
				}
				g.addFieldSets(ofGroups[group])
			}
			levels = append(levels, ofGroups[group])
		}
		if err := rt.provision(ctx, levels, backends, g); err != nil {
			return err
		}
		for _, name := range rt.backendNames() {
			used[name] = true
		}
		rt.matcher.Index = len(routes)
		routes, matchers = append(routes, rt.Route), append(matchers, rt.matcher)
	}
	for name, b := range backends {
		g.addFieldSets(b.around)
		if !used[name] {
			ctx.Logger().Warn("backend is not used by any route", zap.String("backend", name))
		}
	}
	g.warnings.warnOfChanges(routes, backends)
	g.warnings.log(ctx.Logger())
	g.warnings = nil
	g.routes = routes
	g.router = routing.New(matchers, conditionMatchers)
	return nil
}

// scope returns the context in which the handlers of a level are provisioned.
func (g *Gateway) scope(ctx caddy.Context, level, name string) caddy.Context {
	return policy.WithScope(ctx, policy.Scope{Gateway: g.Name, Level: level, Name: name, Legacy: g.Legacy})
}

// routesByGroup returns the names of the routes in each group, including its inner
// groups.
func routesByGroup(all []resolvedRoute) map[*Group][]string {
	names := make(map[*Group][]string)
	for _, rt := range all {
		for _, group := range rt.groups {
			names[group] = append(names[group], rt.label())
		}
	}
	return names
}

// provision loads the route's handlers and builds a handler chain for each backend.
// outer contains the handlers of the outer levels.
func (rt *Route) provision(ctx caddy.Context, outer [][]loadedHandler, backends map[string]*Backend, g *Gateway) error {
	var err error
	if rt.matcher, err = rt.newMatcher(); err != nil {
		return err
	}
	rt.name = rt.label()
	own, err := loadHandlers(g.scope(ctx, "route", rt.name), rt, "HandlersRaw", rt.HandlersRaw)
	if err != nil {
		return fmt.Errorf("loading the handlers of route %s: %w", rt.name, err)
	}
	g.addFieldSets(own)
	levels := append(outer, own)
	rt.everyResponse = everyResponseIn(levels)
	rt.limits = rt.Timeouts.limits()
	rt.weighted = rt.newWeightedBackends()
	var deprecated http.Header // added to the route's responses
	if rt.Deprecated != nil {
		var problem *Problem
		if deprecated, problem = rt.Deprecated.header(); problem != nil {
			return problem
		}
	}
	for i := range rt.weighted {
		s := &rt.weighted[i]
		if err := backends[s.backend].service.AddLimits(ctx, rt.limits); err != nil {
			return fmt.Errorf("setting the timeouts of route %s: %w", rt.name, err)
		}
		handler, err := rt.buildChain(levels, backends[s.backend], deprecated, g)
		if err != nil {
			return fmt.Errorf("ordering the handlers of route %s: %w", rt.name, err)
		}
		s.series, s.handler = g.stats.Series(rt.name, s.backend), handler
	}
	return nil
}

// Cleanup releases the resources of the gateway, even if Provision failed.
func (g *Gateway) Cleanup() error {
	g.reporter.Stop()
	var errs []error
	for _, b := range g.Backends {
		if b != nil {
			errs = append(errs, b.release())
		}
	}
	errs = append(errs, g.registry.Release())
	if g.stats != nil {
		errs = append(errs, g.stats.Close())
	}
	return errors.Join(errs...)
}

func (g *Gateway) backendNamed(name string) *Backend {
	for _, b := range g.Backends {
		if b.Name == name {
			return b
		}
	}
	return nil
}

// ServeHTTP routes a request to its backend. Endpoints and the default response are
// served without a backend.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if g.restores(legacyGRPCErrors) {
		entry.KeepHTTPErrors(r)
	}
	if httpx.IsTunnel(r) {
		upstream.WebSocketAsGET(r)
	}
	if g.stats.ServesPath(r.URL.Path) {
		return chain(g.pageFilters, caddyhttp.HandlerFunc(g.stats.ServePage)).ServeHTTP(w, r)
	}
	if g.Operations != nil && g.Operations.Serves(r.URL.Path) {
		return g.Operations.ServeHTTP(w, r)
	}
	if endpoint := g.endpointFor(r.URL.Path); endpoint != nil {
		return endpoint.ServeHTTP(w, r, notFound)
	}
	before, hops := upstream.TakeHops(r)
	g.fields.Filter(r)
	if most := g.maxHops(); most > 0 && before >= most {
		return g.unrouted.Serve(w, r, chain(g.everyResponse, caddyhttp.HandlerFunc(g.refuseLoop)), nil)
	}
	found, allowed := g.router.Find(r, r.URL.Path)
	if found == nil {
		always := g.everyResponse
		if len(allowed) > 0 {
			always = g.routes[g.router.Nearest(r, r.URL.Path).Index].everyResponse
		}
		return g.unrouted.Serve(w, r, chain(always, g.unroutedHandler(allowed)), nil)
	}
	route := g.routes[found.Index]
	if g.router.IsAmbiguous(r, found) {
		return g.unrouted.Serve(w, r, chain(route.everyResponse, caddyhttp.HandlerFunc(refuseAmbiguous)), nil)
	}
	state := newRequestState(r, g, route)
	state.own.Set(r)
	state.Hops, state.looped = hops, before > 0
	chosen := route.chooseBackend(r)
	state.backend = chosen.backend
	return chosen.series.Serve(w, r, chosen.handler, state)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Gateway)(nil)
	_ caddy.CleanerUpper          = (*Gateway)(nil)
	_ caddyhttp.MiddlewareHandler = (*Gateway)(nil)
)
