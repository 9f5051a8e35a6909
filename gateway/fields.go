package gateway

import (
	"maps"
	"slices"
)

// RequestFields implements policy.FieldReader: conditions of routes name fields.
func (g *Gateway) RequestFields() (names []string) {
	for _, rt := range g.allRoutes() {
		names = slices.AppendSeq(names, maps.Keys(rt.Headers))
	}
	return names
}
