package gateway

import "github.com/rgate/rgate/internal/trust"

// noteFieldSets notes what handlers of the gateway set on requests.
func (g *Gateway) noteFieldSets(handlers []loaded) {
	for _, handler := range handlers {
		trust.EachFieldSet(handler.MiddlewareHandler, func(set trust.FieldSet) {
			if g.fieldSets == nil {
				g.fieldSets = make(map[trust.FieldSet]struct{})
			}
			g.fieldSets[set] = struct{}{}
		})
	}
}

// EachFieldSet implements policy.FieldSetter.
func (g *Gateway) EachFieldSet(visit func(trust.FieldSet)) {
	for set := range g.fieldSets {
		visit(set)
	}
}

// Interface guard
var _ trust.FieldSetter = (*Gateway)(nil)
