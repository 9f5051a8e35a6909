package gateway

import (
	"errors"
	"slices"
)

// order returns the order of handlers that the gateway is configured with.
func (g *Gateway) order() order {
	return order{handlersFirst: g.restores(legacyHandlersFirst), standInsFirst: g.restores(legacyStandInsFirst)}
}

// noteOrder warns of a route whose handlers ran in another order in an earlier version.
func (g *Gateway) noteOrder(route string, levels [][]loaded) {
	if !slices.ContainsFunc(levels, func(level []loaded) bool {
		return slices.ContainsFunc(level, func(h loaded) bool { return rankOf(h.MiddlewareHandler) == 0 })
	}) {
		return
	}
	now := g.order()
	for _, earlier := range []struct {
		order
		message string
	}{
		{order{handlersFirst: true, standInsFirst: now.standInsFirst},
			"handlers that may respond run behind authentication now, wherever they stand: give an open response a route of its own; legacy: [" + legacyHandlersFirst + "] restores the order of earlier versions"},
		{order{handlersFirst: now.handlersFirst, standInsFirst: true},
			"cache, coalesce and fallback run behind all other handlers now, wherever they stand: nothing needs to be set; legacy: [" + legacyStandInsFirst + "] restores the order of earlier versions"},
	} {
		same := func(a, b composed) bool { return a.level == b.level && a.index == b.index }
		if !slices.EqualFunc(now.compose(levels...), earlier.compose(levels...), same) {
			g.warnings.add(earlier.message, route)
		}
	}
}

var errMixed = errors.New("a handler has both authentication and cache, coalesce or fallback in it, and another handler on the way may respond: " +
	"move the authentication, or the other policy, out of it")

// checkTraits reports whether no order of the handlers is safe: what responds in place
// of the backend runs behind other handlers, and these behind authentication.
func checkTraits(levels [][]loaded) error {
	mixed, others := 0, 0
	for _, level := range levels {
		for _, h := range level {
			switch {
			case rankOf(h.MiddlewareHandler) > 0:
			case h.traits&(admits|standsIn) == admits|standsIn:
				mixed++
			case h.traits&responds != 0:
				others++
			}
		}
	}
	if mixed > 1 || mixed == 1 && others > 0 {
		return errMixed
	}
	return nil
}
