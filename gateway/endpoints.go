package gateway

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

// The handlers that keep account of bandwidth, and those that need the account.
const usageHandler = "rgate_bandwidth"

var needUsage = []string{"rgate_quota", "rgate_notify", "rgate_dashboard"}

// rawHandlerName is the name of a handler in JSON.
func rawHandlerName(raw json.RawMessage) string {
	var handler struct {
		Handler string `json:"handler"`
	}
	_ = json.Unmarshal(raw, &handler) // its own type has more to say about that
	return handler.Handler
}

// checkUsageHandler makes sure that no account is turned off that something needs.
func (g *Gateway) checkUsageHandler() error {
	off, need, name := "", "", ""
	g.eachHandler(func(at string, _ *Backend, raw json.RawMessage) {
		is := rawHandlerName(raw)
		if isOff := isRawHandlerOff(raw); is == usageHandler && isOff {
			off = at
		} else if need == "" && !isOff && slices.Contains(needUsage, is) {
			need, name = at, strings.TrimPrefix(is, policy.Prefix)
		}
	})
	if off == "" || need == "" {
		return nil
	}
	problem := problemf(need, "%s needs the account of bandwidth, which is turned off: turn bandwidth on, or take %s out", name, name)
	problem.Other = off
	return problem
}

// isRawHandlerOff reports whether a handler in JSON is turned off.
func isRawHandlerOff(raw json.RawMessage) bool {
	var handler struct {
		Disabled bool `json:"disabled"`
	}
	_ = json.Unmarshal(raw, &handler) // its own type has more to say about that
	return handler.Disabled
}

// checkEndpoints makes sure that endpoints stand on the gateway, each of them once.
func (g *Gateway) checkEndpoints() (err error) {
	places := make(map[string]string)
	g.eachHandler(func(at string, _ *Backend, raw json.RawMessage) {
		name := rawHandlerName(raw)
		if err != nil || !policy.IsEndpoint(name) {
			return
		}
		short := strings.TrimPrefix(name, policy.Prefix)
		if !strings.HasPrefix(at, "handle[") {
			err = problemf(at, "%s is about the whole gateway: move it there", short)
		} else if first, ok := places[name]; ok {
			twice := problemf(at, "the gateway has %s twice: keep one of the two", short)
			twice.Other = first
			err = twice
		}
		places[name] = at
	})
	return err
}

// provisionEndpoints sets the endpoints up, before all policies: these may need what
// an endpoint keeps. The account of bandwidth is kept as soon as anything needs it.
func (g *Gateway) provisionEndpoints(ctx caddy.Context) error {
	hasUsageHandler, needed := false, false
	g.eachHandler(func(_ string, _ *Backend, raw json.RawMessage) {
		name := rawHandlerName(raw)
		hasUsageHandler = hasUsageHandler || name == usageHandler
		needed = needed || slices.Contains(needUsage, name)
	})
	own := struct {
		HandlersRaw []json.RawMessage `caddy:"namespace=http.handlers inline_key=handler"`
	}{}
	if needed && !hasUsageHandler {
		own.HandlersRaw = append(own.HandlersRaw, caddyconfig.JSON(map[string]string{"handler": usageHandler}, nil))
	}
	g.HandlersRaw = slices.DeleteFunc(slices.Clone(g.HandlersRaw), func(raw json.RawMessage) bool {
		is := policy.IsEndpoint(rawHandlerName(raw))
		if is {
			own.HandlersRaw = append(own.HandlersRaw, raw)
		}
		return is
	})
	slices.SortStableFunc(own.HandlersRaw, func(a, b json.RawMessage) int {
		return cmp.Compare(policy.Rank(rawHandlerName(a)), policy.Rank(rawHandlerName(b)))
	})
	handlers, err := loadHandlers(g.scope(ctx, "gateway", ""), &own, "HandlersRaw", own.HandlersRaw)
	if err != nil {
		return fmt.Errorf("loading the gateway's endpoints: %w", err)
	}
	for _, handler := range handlers {
		if endpoint := handler.MiddlewareHandler.(policy.Endpoint); !endpoint.Off() {
			g.endpoints = append(g.endpoints, endpoint)
		}
	}
	return nil
}

// filterStatsPage has the statistics page filtered as the gateway's routes are, unless it says
// itself who may see it. It warns if only clients with credentials may use the routes.
func (g *Gateway) filterStatsPage(common []loadedHandler) {
	if g.Stats.Disabled || len(g.Stats.Allow) > 0 {
		return
	}
	for _, c := range activePolicies([][]loadedHandler{common}) {
		switch name := handlerName(c.handler); {
		case name == "rgate_ip_filter":
			g.pageFilters = append(g.pageFilters, c)
		case policy.Authenticates(name):
			g.logger.Warn("the statistics page does not ask for the credentials that the gateway's routes ask for",
				zap.String("policy", strings.TrimPrefix(name, policy.Prefix)), zap.String("path", cmp.Or(g.Stats.Path, stats.DefaultPath)),
				zap.String("remedy", "set stats.allow to the clients that may see it, or turn it off with stats: false"))
		}
	}
}

// HostNames returns the hosts of the gateway's routes, under which endpoints may be asked
// for, too.
func (g *Gateway) HostNames() (names []string) {
	for _, rt := range g.resolvedRoutes() {
		names = append(names, rt.Hosts...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// endpointFor returns the endpoint that a path is of, or nil.
func (g *Gateway) endpointFor(path string) policy.Endpoint {
	for _, endpoint := range g.endpoints {
		if endpoint.Serves(path) {
			return endpoint
		}
	}
	return nil
}

// notFound is what comes after an endpoint.
var notFound = caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
	policy.WriteStatus(w, r, http.StatusNotFound)
	return nil
})
