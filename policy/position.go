package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/entry"
)

// Position identifies a handler in a configuration: by the addresses of its server, the
// matchers of the routes around it, its scope, and its number among handlers that these
// do not distinguish. It stays the same across reloads, also if other sites, routes and
// handlers are added.
type Position struct {
	text string
	key  positionKey
}

// PositionOf returns the position of the handler that is being provisioned, among
// handlers of the same kind. The caller must call Release.
func PositionOf(ctx caddy.Context, kind string) Position { return newPosition(ctx, kind, false) }

// ContentPositionOf is like PositionOf, but outside of a gateway, the position also
// changes with the handlers around the handler, such as the backend.
func ContentPositionOf(ctx caddy.Context, kind string) Position { return newPosition(ctx, kind, true) }

func newPosition(ctx caddy.Context, kind string, content bool) Position {
	scope := ScopeKey(ctx)
	path := pathTo(ctx, content && scope == "") // in a gateway, the gateway's name identifies it
	hash := sha256.Sum256([]byte(path))         // matchers can be long
	path = hex.EncodeToString(hash[:16])
	key := positionKey{ctx.GetMetricsRegistry(), kind + " " + strconv.Quote(scope) + " " + path}
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

// pathTo returns the path to the handler that is being provisioned. Routes are provisioned
// in order, first their matchers, and keep the JSON of their handlers until all handlers
// are provisioned. Routes without matchers are omitted: in a Caddyfile, their number
// depends on other sites and directives.
func pathTo(ctx caddy.Context, content bool) string {
	server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if server == nil {
		return ""
	}
	var b strings.Builder
	b.WriteString(strings.Join(server.Listen, ","))
	at := func(list string, routes caddyhttp.RouteList) bool {
		for i := range routes {
			if routes[i].HandlersRaw == nil {
				continue
			}
			b.WriteString(list)
			if len(routes[i].MatcherSets) > 0 {
				b.WriteString(" " + matchersText(routes[i].MatcherSets))
			}
			if content {
				b.WriteString(" " + digest(routes[i].HandlersRaw))
			}
			return true
		}
		return false
	}
	if !at("", entry.Routes(server)) && (server.Errors == nil || !at(" errors", server.Errors.Routes)) {
		b.WriteString(" named " + namedRoute(server))
	}
	for _, module := range ctx.Modules() {
		if subroute, ok := module.(*caddyhttp.Subroute); ok && !at("", subroute.Routes) && subroute.Errors != nil {
			at(" errors", subroute.Errors.Routes)
		}
	}
	return b.String()
}

// unstable numbers the handlers in named routes whose order is random. Their positions
// differ after each reload, so that no handler reuses the state of another.
var unstable atomic.Int64

// namedRoute returns the name of the named route that is being provisioned. Caddy
// provisions named routes in random order, so that of several routes the name is not
// known, and the result is unique.
func namedRoute(server *caddyhttp.Server) string {
	if len(server.NamedRoutes) > 1 {
		return strconv.FormatInt(unstable.Add(1), 10)
	}
	for name := range server.NamedRoutes {
		return strconv.Quote(name)
	}
	return ""
}

// matchersText returns a string that identifies the matchers of a route. Caddy loads the
// matchers of a set in random order.
func matchersText(sets caddyhttp.MatcherSets) string {
	texts := make([]string, len(sets))
	for i, set := range sets {
		var matchers []string
		for _, matcher := range set {
			text := ""
			if not, ok := matcher.(*caddyhttp.MatchNot); ok {
				text = matchersText(not.MatcherSets)
			} else {
				encoded, _ := json.Marshal(matcher) // on an error, the type identifies the matcher
				text = string(encoded)
			}
			matchers = append(matchers, fmt.Sprintf("%T%s", matcher, text))
		}
		slices.Sort(matchers)
		texts[i] = strings.Join(matchers, "&")
	}
	return "(" + strings.Join(texts, "|") + ")"
}

// groupName matches the name of a group of routes. In a Caddyfile, it depends on the number
// of groups in other sites.
var groupName = regexp.MustCompile(`"group":"group[0-9]+"`)

// digest returns a hash of the handlers.
func digest(handlers []json.RawMessage) string {
	hash := sha256.New()
	for _, raw := range handlers {
		hash.Write(groupName.ReplaceAllLiteral(raw, []byte(`"group":"group"`)))
	}
	return ":" + hex.EncodeToString(hash.Sum(nil)[:8])
}
