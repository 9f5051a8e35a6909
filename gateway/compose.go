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
// the outer one off, unless they add up.
//
// All other handlers run in the order given, after the policies of outer levels and
// after those that stand before them on their own. One that may respond runs behind
// all that decides who is let in, also on inner levels; and what responds in place of
// the backend runs behind all of them.

// composed is a handler and the level that it comes from.
type composed struct {
	handler      caddyhttp.MiddlewareHandler
	level, index int
}

// order is how handlers are put together. The zero value is the order of this version.
type order struct {
	handlersFirst bool // those that may respond run where they stand
	standInsFirst bool // what responds in place of the backend does not wait for other handlers
}

// free is a handler that is not a policy, on its way to its slot: by how many policies
// run before it.
type free struct {
	composed
	traits traits
	slot   int
}

// compose puts the handlers of several levels, the outermost first, into the order
// in which they run.
func (o order) compose(levels ...[]loaded) []composed {
	if !slices.ContainsFunc(levels, func(level []loaded) bool { return len(level) > 0 }) {
		return nil
	}
	ranked := rankedOf(levels)
	others := o.place(freeOf(levels, ranked), ranked)
	all := make([]composed, 0, len(ranked)+len(others))
	for i := range len(ranked) + 1 {
		for len(others) > 0 && others[0].slot <= i {
			all, others = append(all, others[0].composed), others[1:]
		}
		if i < len(ranked) {
			all = append(all, ranked[i])
		}
	}
	return withGates(all)
}

// freeOf returns the handlers that are not policies, in the order given. Their slots
// are behind the policies of outer levels and those that stand before them.
func freeOf(levels [][]loaded, ranked []composed) (all []free) {
	slot := 0
	for level, handlers := range levels {
		for i, p := range ranked {
			if p.level < level {
				slot = max(slot, i+1)
			}
		}
		for index, handler := range handlers {
			if i := slices.IndexFunc(ranked, func(c composed) bool { return c.level == level && c.index == index }); i >= 0 {
				slot = max(slot, i+1)
			} else if rankOf(handler.MiddlewareHandler) == 0 {
				all = append(all, free{composed{handler.MiddlewareHandler, level, index}, handler.traits, slot})
			}
		}
	}
	return all
}

// place moves handlers that are not policies to where they are safe.
func (o order) place(all []free, ranked []composed) []free {
	if !o.handlersFirst {
		all = behindAuthentication(all, ranked)
	}
	if !o.standInsFirst {
		all = beforeStandIns(all, ranked)
	}
	return all
}

// behindAuthentication moves handlers that may respond behind what decides who is let
// in, and behind such a handler those that may rely on how it has changed a request.
func behindAuthentication(all []free, ranked []composed) []free {
	// What identifies a client runs before what requires something of it.
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
		if f.traits&admits != 0 {
			last = i
		}
	}
	var moved []free
	kept, prepared := make([]free, 0, len(all)), false
	for i, f := range all {
		if i < last && f.traits&admits == 0 && (f.traits&responds != 0 || prepared) {
			moved = append(moved, f)
			prepared = prepared || f.traits&prepares != 0
			continue
		}
		kept = append(kept, f)
		if i == last {
			kept = append(kept, moved...)
		}
	}
	slot, least := 0, 0 // of those that respond, and of all others
	for i := range kept {
		f := &kept[i]
		switch {
		case f.traits&responds != 0:
			slot = max(slot, gate, f.slot)
			f.slot = slot
		case f.traits&identifies != 0:
			f.slot = max(f.slot, identified)
		}
		f.slot = max(f.slot, least)
		if f.traits&prepares != 0 {
			least = f.slot
		}
	}
	bySlot(kept)
	return kept
}

func bySlot(all []free) {
	slices.SortStableFunc(all, func(a, b free) int { return cmp.Compare(a.slot, b.slot) })
}

// beforeStandIns moves handlers before what responds in place of the backend.
func beforeStandIns(all []free, ranked []composed) []free {
	isStandIn := func(f free) bool { return f.traits&standsIn != 0 }
	end := slices.IndexFunc(ranked, func(p composed) bool { return rankOf(p.handler) >= policy.Rank("rgate_fallback") })
	if end < 0 {
		end = len(ranked)
	}
	if !slices.ContainsFunc(all, isStandIn) && (end == len(ranked) || !policy.ReplacesBackend(handlerName(ranked[end].handler))) {
		return all
	}
	for i := range all {
		all[i].slot = min(all[i].slot, end)
	}
	var last []free
	all = slices.DeleteFunc(all, func(f free) bool {
		if isStandIn(f) {
			f.slot = end
			last = append(last, f)
		}
		return isStandIn(f)
	})
	return append(all, last...)
}

// rankedOf returns the policies that are in force, in the order in which they run.
func rankedOf(levels [][]loaded) (ranked []composed) {
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
				ranked = append(ranked, composed{handler, level, index})
			}
			if off || !policy.Cumulative(name) {
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

// withGates puts the gates of policies before the first handler that may authenticate, if
// that is on the way to the policy.
func withGates(all []composed) []composed {
	first := slices.IndexFunc(all, func(c composed) bool {
		name := handlerName(c.handler)
		return policy.Authenticates(name) || policy.Rank(name) == 0 && !slices.Contains(silent, name)
	})
	if first < 0 {
		return all
	}
	var gates []composed
	for _, c := range all[first:] {
		if gated, ok := c.handler.(policy.PreAuthModule); ok {
			if gate := gated.PreAuthHandler(); gate != nil {
				gates = append(gates, composed{gate, c.level, c.index})
			}
		}
	}
	return slices.Insert(all, first, gates...)
}

// alwaysIn returns those policies that every response needs, also one to a request that no
// route takes: its identifier, that pages may read it, and what makes browsers careful.
func alwaysIn(levels [][]loaded) []composed {
	return slices.DeleteFunc(order{}.compose(levels...), func(c composed) bool {
		rank := rankOf(c.handler)
		return rank == 0 || rank > policy.Rank("rgate_security")
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
