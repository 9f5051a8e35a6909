package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/entry"
)

// Position is where a handler stands in a configuration: the addresses of its server,
// the way to it through lists of routes, and its gateway and level. No two handlers of a
// configuration have the same one. A reload leaves it as it is, unless handlers around it
// have changed.
type Position struct {
	text string
	key  positionKey
}

// PositionOf returns the position of the handler that is being provisioned, of those of a
// kind. Release gives it back.
func PositionOf(ctx caddy.Context, kind string) Position {
	key := positionKey{ctx.GetMetricsRegistry(), kind + " " + strconv.Quote(ScopeKey(ctx)) + " " + route(ctx)}
	count, _, _ := positions.LoadOrNew(key, func() (caddy.Destructor, error) { return new(equalPositions), nil }) // it cannot fail
	return Position{key.text + " " + strconv.FormatInt(count.(*equalPositions).Add(1), 10), key}
}

// String returns a text that no other position has.
func (p *Position) String() string { return p.text }

// Release ends the use of the position, once.
func (p *Position) Release() {
	if p.key.text != "" {
		_, _ = positions.Delete(p.key)
		p.key = positionKey{}
	}
}

// positions count what is equal so far, by configuration: each has a registry of metrics
// of its own.
var positions = caddy.NewUsagePool()

type positionKey struct {
	configuration *prometheus.Registry
	text          string
}

type equalPositions struct{ atomic.Int64 }

func (*equalPositions) Destruct() error { return nil }

// unstable makes texts that no configuration has had.
var unstable atomic.Int64

// route is the way to the handler that is being provisioned. Routes are provisioned one
// after another, and have the JSON of their handlers until all of them are.
func route(ctx caddy.Context) string {
	server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if server == nil {
		return ""
	}
	var b strings.Builder
	b.WriteString(strings.Join(server.Listen, ","))
	inGateway := ScopeOf(ctx).Level != ""
	at := func(list string, routes caddyhttp.RouteList) bool {
		for i := range routes {
			if routes[i].HandlersRaw == nil {
				continue
			}
			b.WriteString(" " + list + strconv.Itoa(i))
			if !inGateway { // which has a name
				b.WriteString(digest(routes[i].HandlersRaw))
			}
			return true
		}
		return false
	}
	if !at("r", entry.Routes(server)) && (server.Errors == nil || !at("e", server.Errors.Routes)) {
		var left []string
		for name, named := range server.NamedRoutes {
			if named != nil && named.HandlersRaw != nil {
				left = append(left, name)
			}
		}
		if len(left) == 1 && len(server.NamedRoutes) == 1 {
			b.WriteString(" n" + strconv.Quote(left[0]))
		} else { // Caddy provisions them in any order
			b.WriteString(" u" + strconv.FormatInt(unstable.Add(1), 10))
		}
	}
	for _, module := range ctx.Modules() {
		if subroute, ok := module.(*caddyhttp.Subroute); ok && !at("s", subroute.Routes) && subroute.Errors != nil {
			at("e", subroute.Errors.Routes)
		}
	}
	return b.String()
}

// digest tells apart what routes lead to.
func digest(handlers []json.RawMessage) string {
	hash := sha256.New()
	for _, raw := range handlers {
		hash.Write(raw)
	}
	return ":" + hex.EncodeToString(hash.Sum(nil)[:8])
}
