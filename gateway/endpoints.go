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

// usageHandler is the handler that records bandwidth. The handlers in needUsage require
// it.
const usageHandler = "rgate_bandwidth"

var needUsage = []string{"rgate_quota", "rgate_notify", "rgate_dashboard"}

// rawHandlerName returns the name of a handler in JSON form.
func rawHandlerName(raw json.RawMessage) string {
	var handler struct {
		Handler string `json:"handler"`
	}
	_ = json.Unmarshal(raw, &handler) // provisioning reports the error
	return handler.Handler
}

// checkUsageHandler reports a handler that requires the usage handler if that is
// disabled.
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
	problem := problemf(need, "%s requires bandwidth, which is disabled: enable bandwidth or remove %s", name, name)
	problem.Other = off
	return problem
}

// isRawHandlerOff reports whether a handler in JSON form is disabled.
func isRawHandlerOff(raw json.RawMessage) bool {
	var handler struct {
		Disabled bool `json:"disabled"`
	}
	_ = json.Unmarshal(raw, &handler) // provisioning reports the error
	return handler.Disabled
}

// checkEndpoints reports an endpoint that is not a handler of the gateway, or a
// duplicate.
func (g *Gateway) checkEndpoints() (err error) {
	places := make(map[string]string)
	g.eachHandler(func(at string, _ *Backend, raw json.RawMessage) {
		name := rawHandlerName(raw)
		if err != nil || !policy.IsEndpoint(name) {
			return
		}
		short := strings.TrimPrefix(name, policy.Prefix)
		if !strings.HasPrefix(at, "handle[") {
			err = problemf(at, "%s applies to the whole gateway: move it to the gateway's handle", short)
		} else if first, ok := places[name]; ok {
			twice := problemf(at, "duplicate %s: remove one of the two", short)
			twice.Other = first
			err = twice
		}
		places[name] = at
	})
	return err
}

// provisionEndpoints provisions the endpoints, before the policies that depend on them.
// It adds the usage handler if another handler requires it.
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

// filterStatsPage applies the gateway's ip_filter to the statistics page, unless the
// page has `allow`. It warns if routes require authentication but the page does not.
func (g *Gateway) filterStatsPage(common []loadedHandler) {
	if g.Stats.Disabled || len(g.Stats.Allow) > 0 {
		return
	}
	for _, c := range activePolicies([][]loadedHandler{common}) {
		switch name := handlerName(c.handler); {
		case name == "rgate_ip_filter":
			g.pageFilters = append(g.pageFilters, c)
		case policy.Authenticates(name):
			g.logger.Warn("the statistics page requires no credentials, but routes of the gateway do",
				zap.String("policy", strings.TrimPrefix(name, policy.Prefix)), zap.String("path", cmp.Or(g.Stats.Path, stats.DefaultPath)),
				zap.String("remedy", "set stats.allow to restrict access by address, or set stats: false to disable the page"))
		}
	}
}

// HostNames returns the hosts of the gateway's routes. Endpoints accept them, too.
func (g *Gateway) HostNames() (names []string) {
	for _, rt := range g.resolvedRoutes() {
		names = append(names, rt.Hosts...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// endpointFor returns the endpoint that serves a path, or nil.
func (g *Gateway) endpointFor(path string) policy.Endpoint {
	for _, endpoint := range g.endpoints {
		if endpoint.Serves(path) {
			return endpoint
		}
	}
	return nil
}

// notFound responds with 404. It runs if an endpoint calls its next handler.
var notFound = caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
	policy.WriteStatus(w, r, http.StatusNotFound)
	return nil
})
