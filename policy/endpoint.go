package policy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/trust"
)

// Endpoint is a module that answers requests for a path of its own and leaves all
// others alone. On a gateway it is asked before any route, and what it answers is not
// counted in the statistics.
type Endpoint interface {
	Module

	// Serves reports whether the path of a request is the endpoint's.
	Serves(path string) bool
}

// IsEndpoint reports whether a handler by its name in JSON is an Endpoint.
func IsEndpoint(handler string) bool {
	module, ok := Lookup(strings.TrimPrefix(handler, Prefix))
	if !ok {
		return false
	}
	_, ok = module.New().(Endpoint)
	return ok
}

// EndpointDirective makes the setup function of an endpoint's directive, to be given to
// httpcaddyfile.RegisterDirective. It is like Directive, but takes no matcher: its first
// argument is the path of the endpoint.
func EndpointDirective[T any, P interface {
	*T
	Endpoint
}](h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	handler, err := Directive[T, P](h)
	if err != nil {
		return nil, err
	}
	return h.NewRoute(nil, handler), nil
}

// ProtectedEndpoint is what endpoints embed that only some may see.
type ProtectedEndpoint struct {
	// The path that the endpoint is under.
	Path string `json:"path,omitempty" caddyfile:"arg"`

	// Who may see it: IP addresses, ranges, or `private_ranges`. Default:
	// `private_ranges`.
	// A request counts as from elsewhere if it has passed a proxy that is none of the
	// server's trusted proxies, or if its host is neither an address nor localhost nor a
	// name of the configuration. `[0.0.0.0/0, "::/0"]` is all clients.
	Allow []string `json:"allow,omitempty"`

	// More names under which it may be asked for: that of the gateway in the network of
	// its containers, for example. `*.example.com` is for one label. Default: those of
	// the site, the gateway and its routes, and the name of the machine.
	Hosts []string `json:"hosts,omitempty"`

	// Handlers that run before it, such as one that wants a password. Policies run
	// in their own order.
	HandlersRaw []json.RawMessage `json:"handle,omitempty" caddy:"namespace=http.handlers inline_key=handler"`

	handlers []caddyhttp.MiddlewareHandler
	filter   refuser         // one of them, of addresses
	locality *trust.Locality // nil: all clients may see it
}

// LookupHandler implements options.HandlerLookup: the handlers are policies.
func (*ProtectedEndpoint) LookupHandler(name string) (caddy.ModuleInfo, bool) {
	return Lookup(strings.TrimPrefix(name, Prefix))
}

// CheckAccess reports whether something is wrong with the path, or with whom to allow.
// An empty path is right.
func (g *ProtectedEndpoint) CheckAccess(example string) error {
	if g.Path != "" && (!strings.HasPrefix(g.Path, "/") || len(g.Path) < 2 || strings.HasSuffix(g.Path, "/") || strings.ContainsAny(g.Path, "*?#%")) {
		return options.Errorf("path", "%q is not a path to put endpoints under: use one such as %s", g.Path, example)
	}
	for i, host := range g.Hosts {
		if host == "" || strings.ContainsAny(host, "/: \t") {
			return options.Errorf(fmt.Sprintf("hosts[%d]", i), "invalid host %q: must be a name without scheme and port", host)
		}
	}
	if len(g.Allow) == 0 {
		return nil
	}
	module, ok := Lookup("ip_filter")
	if !ok {
		return nil
	}
	filter := module.New().(Module)
	if err := json.Unmarshal(caddyconfig.JSON(map[string]any{"allow": g.Allow}, nil), filter); err != nil {
		return err
	}
	return filter.Check()
}

// ProvisionAccess loads the handlers that decide who is let through to the endpoint.
func (g *ProtectedEndpoint) ProvisionAccess(ctx caddy.Context) error {
	if g.Allow == nil {
		g.Allow = []string{"private_ranges"}
	}
	filter, err := ctx.LoadModuleByID("http.handlers.rgate_ip_filter", caddyconfig.JSON(map[string]any{"allow": g.Allow}, nil))
	if err != nil {
		return fmt.Errorf("loading the filter of addresses for %s: %w", g.Path, err)
	}
	g.filter = filter.(refuser)
	if !trust.HasAllAddresses(g.Allow) {
		g.locality = trust.NewLocality(ctx, g.Hosts)
	}
	g.handlers = []caddyhttp.MiddlewareHandler{filter.(caddyhttp.MiddlewareHandler)}
	if g.HandlersRaw == nil {
		return nil
	}
	own, err := ctx.LoadModule(g, "HandlersRaw")
	if err != nil {
		return fmt.Errorf("loading the handlers of %s: %w", g.Path, err)
	}
	for _, handler := range own.([]any) {
		if switched, ok := handler.(interface{ Off() bool }); !ok || !switched.Off() {
			g.handlers = append(g.handlers, handler.(caddyhttp.MiddlewareHandler))
		}
	}
	slices.SortStableFunc(g.handlers, func(a, b caddyhttp.MiddlewareHandler) int {
		return cmp.Compare(rankAmongGuards(a), rankAmongGuards(b))
	})
	return nil
}

// rankAmongGuards puts what has no place in the order of policies last.
func rankAmongGuards(handler caddyhttp.MiddlewareHandler) int {
	if module, ok := handler.(caddy.Module); ok {
		if rank := Rank(module.CaddyModule().ID.Name()); rank > 0 {
			return rank
		}
	}
	return len(order) + 1
}

// Serves reports whether a path is the endpoint's, or under it.
func (g *ProtectedEndpoint) Serves(path string) bool {
	rest, ok := strings.CutPrefix(path, g.Path)
	return ok && g.Path != "" && (rest == "" || rest[0] == '/')
}

// ServeProtected calls the handler for a request that is let through, or refuses it.
func (g *ProtectedEndpoint) ServeProtected(w http.ResponseWriter, r *http.Request, answer caddyhttp.HandlerFunc) error {
	if g.locality != nil {
		if err := g.locality.Check(r); err != nil {
			return g.filter.Refuse(w, r, http.StatusForbidden, err)
		}
	}
	next := caddyhttp.Handler(answer)
	for _, handler := range slices.Backward(g.handlers) {
		next = Before(handler, next)
	}
	return next.ServeHTTP(w, r)
}

// refuser is a policy: see Base.Refuse.
type refuser interface {
	Refuse(w http.ResponseWriter, r *http.Request, status int, cause error) error
}

// Before puts a handler before the next one.
func Before(handler caddyhttp.MiddlewareHandler, next caddyhttp.Handler) caddyhttp.Handler {
	return caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return handler.ServeHTTP(w, r, next)
	})
}
