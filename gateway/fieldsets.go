package gateway

import "github.com/rgate/rgate/policy"

// noteFieldSets notes what handlers of the gateway set on requests.
func (g *Gateway) noteFieldSets(handlers []loaded) {
	for _, handler := range handlers {
		policy.EachFieldSet(handler.MiddlewareHandler, func(set policy.FieldSet) {
			if g.fieldSets == nil {
				g.fieldSets = make(map[policy.FieldSet]struct{})
			}
			g.fieldSets[set] = struct{}{}
		})
	}
}

// EachFieldSet implements policy.FieldSetter.
func (g *Gateway) EachFieldSet(visit func(policy.FieldSet)) {
	for set := range g.fieldSets {
		visit(set)
	}
}

// Interface guard
var _ policy.FieldSetter = (*Gateway)(nil)
