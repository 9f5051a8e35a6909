package gateway

import (
	"cmp"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
)

// A request passes the handlers of several levels: the gateway, the groups around
// its route, the route, and the backend. Policies have a fixed order, wherever they
// stand; of two of the same name, the one of the inner level wins and may also turn
// the outer one off, unless they add up. All other handlers run after the policies of outer levels and
// after those that stand before them on their own.

// composed is a handler and the level that it comes from.
type composed struct {
	handler      caddyhttp.MiddlewareHandler
	level, index int
}

// compose puts the handlers of several levels, the outermost first, into the order
// in which they run.
func compose(levels ...[]caddyhttp.MiddlewareHandler) []composed {
	if !slices.ContainsFunc(levels, func(level []caddyhttp.MiddlewareHandler) bool { return len(level) > 0 }) {
		return nil
	}
	ranked := rankedOf(levels)
	free := make([][]composed, len(ranked)+1) // by how many policies run before them
	slot := 0
	for level, handlers := range levels {
		// Behind all policies of outer levels.
		for i, p := range ranked {
			if p.level < level {
				slot = max(slot, i+1)
			}
		}
		for index, handler := range handlers {
			if i := slices.IndexFunc(ranked, func(c composed) bool { return c.level == level && c.index == index }); i >= 0 {
				slot = max(slot, i+1)
			} else if rankOf(handler) == 0 {
				free[slot] = append(free[slot], composed{handler, level, index})
			}
		}
	}
	all := free[0]
	for i, p := range ranked {
		all = append(append(all, p), free[i+1]...)
	}
	return all
}

// rankedOf returns the policies that are in force, in the order in which they run.
func rankedOf(levels [][]caddyhttp.MiddlewareHandler) (ranked []composed) {
	decided := make(map[string]bool) // by an inner level
	for level, handlers := range slices.Backward(levels) {
		var here []string
		for index, handler := range handlers {
			name := handlerName(handler)
			if policy.Rank(name) == 0 || decided[name] {
				continue
			}
			switched, ok := handler.(interface{ Off() bool })
			off := ok && switched.Off()
			if !off {
				ranked = append(ranked, composed{handler, level, index})
			}
			if off || !policy.AddsUp(name) {
				here = append(here, name)
			}
		}
		for _, name := range here {
			decided[name] = true
		}
	}
	slices.SortFunc(ranked, func(a, b composed) int {
		return cmp.Or(cmp.Compare(rankOf(a.handler), rankOf(b.handler)), cmp.Compare(a.level, b.level), cmp.Compare(a.index, b.index))
	})
	return ranked
}

func rankOf(handler caddyhttp.MiddlewareHandler) int { return policy.Rank(handlerName(handler)) }

// handlerName is a handler's name in JSON.
func handlerName(handler caddyhttp.MiddlewareHandler) string {
	if module, ok := handler.(caddy.Module); ok {
		return module.CaddyModule().ID.Name()
	}
	return ""
}

// alwaysIn returns those of the gateway's policies that every answer needs, also one
// to a request that no route takes: its identifier, what makes browsers careful, and
// that pages may read it.
func alwaysIn(gateway []caddyhttp.MiddlewareHandler) []composed {
	return slices.DeleteFunc(compose(gateway), func(c composed) bool {
		rank := rankOf(c.handler)
		return rank == 0 || rank > policy.Rank("rgate_cors")
	})
}

// withinLimit returns the index of the first of the handlers that the backend's time
// limit includes: those that come last and are the backend's own, except for the ones
// that are to act when the time is over.
func withinLimit(handlers []composed, backendLevel int) int {
	first := len(handlers)
	for first > 0 && handlers[first-1].level == backendLevel {
		if rank := rankOf(handlers[first-1].handler); rank > 0 && rank < policy.Rank("rgate_concurrency") {
			break
		}
		first--
	}
	return first
}

// chain puts handlers before the last one, the first outermost.
func chain(handlers []composed, last caddyhttp.Handler) caddyhttp.Handler {
	for _, c := range slices.Backward(handlers) {
		last = policy.Before(c.handler, last)
	}
	return last
}
