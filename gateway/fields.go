package gateway

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/trust"
)

// provisionFields sets up the filter of request fields that backends trust. Its logger
// is not sampled, because each field is logged once.
func (g *Gateway) provisionFields(ctx caddy.Context) {
	keep := make([]string, len(g.KeepFields))
	for i, name := range g.KeepFields {
		keep[i] = http.CanonicalHeaderKey(name)
	}
	g.fields = &trust.FieldFilter{TrustIdentity: g.TrustIdentity, Relayed: true, Keep: keep, Logger: ctx.Logger()}
	trust.MountFilter(ctx, keep...)
}

// checkKeepFields reports a name in keep_fields that has no effect.
func (g *Gateway) checkKeepFields() error {
	for i, name := range g.KeepFields {
		if trust.IsRelayField(name) {
			continue
		}
		at := fmt.Sprintf("keep_fields[%d]", i)
		if trust.IsReplacedField(name) {
			return problemf(at, "invalid field %q: the gateway always replaces this field: remove it, and add the proxy in front of the gateway to trusted_proxies of the server", name)
		}
		return problemf(at, "invalid field %q%s: must be one that the gateway removes or sets, such as %s", name,
			options.Suggest(name, trust.RelayFields), strings.Join(trust.RelayFields[:3], ", "))
	}
	return nil
}

// RequestFields returns the fields that the conditions of routes read. It implements
// trust.FieldReader.
func (g *Gateway) RequestFields() (names []string) {
	for _, rt := range g.resolvedRoutes() {
		names = slices.AppendSeq(names, maps.Keys(rt.Headers))
	}
	return names
}

// addFieldSets records the request fields that handlers set.
func (g *Gateway) addFieldSets(handlers []loadedHandler) {
	for _, handler := range handlers {
		trust.EachFieldSet(handler.MiddlewareHandler, func(set trust.FieldSet) {
			if g.fieldSets == nil {
				g.fieldSets = make(map[trust.FieldSet]struct{})
			}
			g.fieldSets[set] = struct{}{}
		})
	}
}

// EachFieldSet implements trust.FieldSetter.
func (g *Gateway) EachFieldSet(visit func(trust.FieldSet)) {
	for set := range g.fieldSets {
		visit(set)
	}
}

// Interface guard
var _ trust.FieldSetter = (*Gateway)(nil)
