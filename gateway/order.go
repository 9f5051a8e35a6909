package gateway

import (
	"cmp"
	"errors"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
)

// Handlers come from several levels: the gateway, the groups of the route, the route,
// and the backend. Policies run in a fixed order across all levels. If two levels have
// the same policy, the inner one replaces or disables the outer one, unless the policy
// is cumulative.
//
// Other handlers run in the configured order. They run after the policies of outer
// levels and after the policies listed before them on their own level. Handlers that
// may respond run after all authentication and authorization. Policies that replace the
// backend's response run after all other handlers.

// orderedHandler is a handler and its level.
type orderedHandler struct {
	handler      caddyhttp.MiddlewareHandler
	level, index int
}

// order selects the ordering rules. The zero value selects the rules of the current
// version.
type order struct {
	handlersFirst bool // do not move handlers that may respond behind authentication
	standInsFirst bool // do not move cache, coalesce and fallback behind other handlers
}

// otherHandler is a handler that is not a policy. Its slot is the number of policies
// that run before it.
type otherHandler struct {
	orderedHandler
	traits traits
	slot   int
}

// arrange returns the handlers of all levels in the order in which they run. levels
// begins with the outermost.
func (o order) arrange(levels ...[]loadedHandler) []orderedHandler {
	if !slices.ContainsFunc(levels, func(level []loadedHandler) bool { return len(level) > 0 }) {
		return nil
	}
	ranked := activePolicies(levels)
	others := o.moveOthers(otherHandlers(levels, ranked), ranked)
	all := make([]orderedHandler, 0, len(ranked)+len(others))
	for i := range len(ranked) + 1 {
		for len(others) > 0 && others[0].slot <= i {
			all, others = append(all, others[0].orderedHandler), others[1:]
		}
		if i < len(ranked) {
			all = append(all, ranked[i])
		}
	}
	return insertGates(all)
}

// otherHandlers returns the handlers that are not policies, in the configured order.
func otherHandlers(levels [][]loadedHandler, ranked []orderedHandler) (all []otherHandler) {
	slot := 0
	for level, handlers := range levels {
		for i, p := range ranked {
			if p.level < level {
				slot = max(slot, i+1)
			}
		}
		for index, handler := range handlers {
			if i := slices.IndexFunc(ranked, func(c orderedHandler) bool { return c.level == level && c.index == index }); i >= 0 {
				slot = max(slot, i+1)
			} else if rank(handler.MiddlewareHandler) == 0 {
				all = append(all, otherHandler{orderedHandler{handler.MiddlewareHandler, level, index}, handler.traits, slot})
			}
		}
	}
	return all
}

// moveOthers moves handlers that are not policies to positions where they cannot bypass
// policies.
func (o order) moveOthers(all []otherHandler, ranked []orderedHandler) []otherHandler {
	if !o.handlersFirst {
		all = moveBehindAuthentication(all, ranked)
	}
	if !o.standInsFirst {
		all = moveBeforeStandIns(all, ranked)
	}
	return all
}

// moveBehindAuthentication moves handlers that may respond behind authentication and
// authorization. Later handlers that may depend on their changes to the request move
// with them.
func moveBehindAuthentication(all []otherHandler, ranked []orderedHandler) []otherHandler {
	// Handlers that identify the client run before require.
	gate, identified, last := 0, 0, -1
	for i, p := range ranked {
		switch name := handlerName(p.handler); {
		case name == "rgate_require":
			gate = i + 1
		case policy.Authorizes(name):
			gate, identified = i+1, i+1
		}
	}
	for i, f := range all {
		if f.traits&authorizes != 0 {
			last = i
		}
	}
	var moved []otherHandler
	kept, prepared := make([]otherHandler, 0, len(all)), false
	for i, f := range all {
		if i < last && f.traits&authorizes == 0 && (f.traits&mayRespond != 0 || prepared) {
			moved = append(moved, f)
			prepared = prepared || f.traits&mayChange != 0
			continue
		}
		kept = append(kept, f)
		if i == last {
			kept = append(kept, moved...)
		}
	}
	slot, least := 0, 0 // minimum slots: of handlers that may respond, and of all handlers
	for i := range kept {
		f := &kept[i]
		switch {
		case f.traits&mayRespond != 0:
			slot = max(slot, gate, f.slot)
			f.slot = slot
		case f.traits&identifies != 0:
			f.slot = max(f.slot, identified)
		}
		f.slot = max(f.slot, least)
		if f.traits&mayChange != 0 {
			least = f.slot
		}
	}
	sortBySlot(kept)
	return kept
}

func sortBySlot(all []otherHandler) {
	slices.SortStableFunc(all, func(a, b otherHandler) int { return cmp.Compare(a.slot, b.slot) })
}

// moveBeforeStandIns moves handlers before cache, coalesce and fallback.
func moveBeforeStandIns(all []otherHandler, ranked []orderedHandler) []otherHandler {
	isStandIn := func(f otherHandler) bool { return f.traits&replacesBackend != 0 }
	end := slices.IndexFunc(ranked, func(p orderedHandler) bool { return rank(p.handler) >= policy.Rank("rgate_fallback") })
	if end < 0 {
		end = len(ranked)
	}
	if !slices.ContainsFunc(all, isStandIn) && (end == len(ranked) || !policy.ReplacesBackend(handlerName(ranked[end].handler))) {
		return all
	}
	for i := range all {
		all[i].slot = min(all[i].slot, end)
	}
	var last []otherHandler
	all = slices.DeleteFunc(all, func(f otherHandler) bool {
		if isStandIn(f) {
			f.slot = end
			last = append(last, f)
		}
		return isStandIn(f)
	})
	return append(all, last...)
}

// activePolicies returns the enabled policies in the order in which they run.
func activePolicies(levels [][]loadedHandler) (ranked []orderedHandler) {
	decided := make(map[string]bool) // by an inner level
	for level, handlers := range slices.Backward(levels) {
		var here []string
		for index, one := range handlers {
			handler := one.MiddlewareHandler
			name := handlerName(handler)
			if policy.Rank(name) == 0 || decided[name] {
				continue
			}
			switched, ok := handler.(interface{ Off() bool })
			off := ok && switched.Off()
			if !off {
				ranked = append(ranked, orderedHandler{handler, level, index})
			}
			if off || !policy.Cumulative(name) {
				here = append(here, name)
			}
		}
		for _, name := range here {
			decided[name] = true
		}
	}
	slices.SortFunc(ranked, func(a, b orderedHandler) int {
		return cmp.Or(cmp.Compare(rank(a.handler), rank(b.handler)), cmp.Compare(a.level, b.level), cmp.Compare(a.index, b.index))
	})
	return ranked
}

func rank(handler caddyhttp.MiddlewareHandler) int { return policy.Rank(handlerName(handler)) }

// handlerName returns the name that a handler has in JSON.
func handlerName(handler caddyhttp.MiddlewareHandler) string {
	if module, ok := handler.(caddy.Module); ok {
		return module.CaddyModule().ID.Name()
	}
	return ""
}

// insertGates inserts the pre-authentication handlers of policies. Each runs before the
// first handler that may authenticate, if that handler runs before the policy.
func insertGates(all []orderedHandler) []orderedHandler {
	first := slices.IndexFunc(all, func(c orderedHandler) bool {
		name := handlerName(c.handler)
		return policy.Authenticates(name) || policy.Rank(name) == 0 && !slices.Contains(neverRespond, name)
	})
	if first < 0 {
		return all
	}
	var gates []orderedHandler
	for _, c := range all[first:] {
		if gated, ok := c.handler.(policy.PreAuthModule); ok {
			if gate := gated.PreAuthHandler(); gate != nil {
				gates = append(gates, orderedHandler{gate, c.level, c.index})
			}
		}
	}
	return slices.Insert(all, first, gates...)
}

// order returns the ordering rules that the gateway's configuration selects.
func (g *Gateway) order() order {
	return order{handlersFirst: g.restores(legacyHandlersFirst), standInsFirst: g.restores(legacyStandInsFirst)}
}

// warnOfOrder adds a warning if the handlers of a route ran in another order in an
// earlier version.
func (g *Gateway) warnOfOrder(route string, levels [][]loadedHandler) {
	if !slices.ContainsFunc(levels, func(level []loadedHandler) bool {
		return slices.ContainsFunc(level, func(h loadedHandler) bool { return rank(h.MiddlewareHandler) == 0 })
	}) {
		return
	}
	now := g.order()
	for _, earlier := range []struct {
		order
		message string
	}{
		{order{handlersFirst: true, standInsFirst: now.standInsFirst},
			"handlers that may respond run after authentication, regardless of their position: use a separate route for public responses, or set legacy: [" + legacyHandlersFirst + "] for the order of earlier versions"},
		{order{handlersFirst: now.handlersFirst, standInsFirst: true},
			"cache, coalesce and fallback run after all other handlers, regardless of their position: no change is required, or set legacy: [" + legacyStandInsFirst + "] for the order of earlier versions"},
	} {
		same := func(a, b orderedHandler) bool { return a.level == b.level && a.index == b.index }
		if !slices.EqualFunc(now.arrange(levels...), earlier.arrange(levels...), same) {
			g.warnings.add(earlier.message, route)
		}
	}
}

var errNoSafeOrder = errors.New("a handler contains both authentication and cache, coalesce or fallback, and another handler of the route may respond: " +
	"move the authentication, or the other policy, out of that handler")

// checkOrder returns an error if no order of the handlers is safe. This is the case if
// one handler contains both authentication and a policy that replaces the backend's
// response, and another handler may respond.
func checkOrder(levels [][]loadedHandler) error {
	mixed, others := 0, 0
	for _, level := range levels {
		for _, h := range level {
			switch {
			case rank(h.MiddlewareHandler) > 0:
			case h.traits&(authorizes|replacesBackend) == authorizes|replacesBackend:
				mixed++
			case h.traits&mayRespond != 0:
				others++
			}
		}
	}
	if mixed > 1 || mixed == 1 && others > 0 {
		return errNoSafeOrder
	}
	return nil
}
