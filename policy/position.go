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

// Position identifies a handler in a configuration: by the addresses of its server, its
// path through lists of routes, and its scope. It stays the same across reloads, unless
// the surrounding handlers change or the handler is in one of several named routes.
type Position struct {
	text string
	key  positionKey
}

// PositionOf returns the position of the handler that is being provisioned, among
// handlers of the same kind. The caller must call Release.
func PositionOf(ctx caddy.Context, kind string) Position {
	key := positionKey{ctx.GetMetricsRegistry(), kind + " " + strconv.Quote(ScopeKey(ctx)) + " " + route(ctx)}
	count, _, _ := positions.LoadOrNew(key, func() (caddy.Destructor, error) { return new(equalPositions), nil }) // the constructor never fails
	return Position{key.text + " " + strconv.FormatInt(count.(*equalPositions).Add(1), 10), key}
}

// String returns a string that is unique among the positions of a configuration.
func (p *Position) String() string { return p.text }

// Release releases the position. Further calls have no effect.
func (p *Position) Release() {
	if p.key.text != "" {
		_, _ = positions.Delete(p.key)
		p.key = positionKey{}
	}
}

// positions counts equal positions by configuration. The metrics registry identifies
// the configuration.
var positions = caddy.NewUsagePool()

type positionKey struct {
	configuration *prometheus.Registry
	text          string
}

type equalPositions struct{ atomic.Int64 }

func (*equalPositions) Destruct() error { return nil }

// unstable numbers the handlers in named routes whose order is random. Their positions
// differ after each reload, so that no handler reuses the state of another.
var unstable atomic.Int64

// route returns the path to the handler that is being provisioned. Routes are
// provisioned in order and keep the JSON of their handlers until all of these are
// provisioned.
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
			if !inGateway { // in a gateway, the gateway's name identifies it
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
		} else { // Caddy provisions named routes in random order
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

// digest returns a hash of the handlers.
func digest(handlers []json.RawMessage) string {
	hash := sha256.New()
	for _, raw := range handlers {
		hash.Write(raw)
	}
	return ":" + hex.EncodeToString(hash.Sum(nil)[:8])
}
