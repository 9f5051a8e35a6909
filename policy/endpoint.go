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

// Endpoint is a policy that responds to requests for its own path and forwards all
// others. On a gateway, it runs before the routes, and statistics exclude its
// responses.
type Endpoint interface {
	Module

	// Serves reports whether the endpoint serves a path.
	Serves(path string) bool
}

// IsEndpoint reports whether the handler with a name in JSON is an Endpoint.
func IsEndpoint(handler string) bool {
	module, ok := Lookup(strings.TrimPrefix(handler, Prefix))
	if !ok {
		return false
	}
	_, ok = module.New().(Endpoint)
	return ok
}

// EndpointDirective parses an endpoint's directive, for httpcaddyfile.RegisterDirective.
// Unlike Directive, it accepts no matcher: the first argument is the path of the
// endpoint.
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

// ProtectedEndpoint restricts the clients of an endpoint. Endpoints embed it.
type ProtectedEndpoint struct {
	// The path of the endpoint.
	Path string `json:"path,omitempty" caddyfile:"arg"`

	// The allowed clients: IP addresses, CIDR ranges, or `private_ranges`. Requests
	// that have passed an untrusted proxy are rejected. So are requests whose host is
	// not an address, localhost or a configured name. `[0.0.0.0/0, "::/0"]` allows all
	// clients. Default: `private_ranges`.
	Allow []string `json:"allow,omitempty"`

	// Additional host names to accept, such as the gateway's name in a container
	// network. `*.example.com` matches one label. Default: none. The names of the site, the
	// gateway, its routes and the machine are always accepted.
	Hosts []string `json:"hosts,omitempty"`

	// The handlers that run before the endpoint, such as one that requires a password.
	// Policies run in a fixed order. Default: none.
	HandlersRaw []json.RawMessage `json:"handle,omitempty" caddy:"namespace=http.handlers inline_key=handler"`

	handlers []caddyhttp.MiddlewareHandler
	filter   refuser         // the address filter among the handlers
	locality *trust.Locality // nil: all clients are allowed
}

// LookupHandler implements options.HandlerLookup: the handlers are policies.
func (*ProtectedEndpoint) LookupHandler(name string) (caddy.ModuleInfo, bool) {
	return Lookup(strings.TrimPrefix(name, Prefix))
}

// CheckAccess returns an error for the first invalid option. An empty path is valid.
func (g *ProtectedEndpoint) CheckAccess(example string) error {
	if g.Path != "" && (!strings.HasPrefix(g.Path, "/") || len(g.Path) < 2 || strings.HasSuffix(g.Path, "/") || strings.ContainsAny(g.Path, "*?#%")) {
		return options.Errorf("path", "invalid path %q: use a path such as %s", g.Path, example)
	}
	for i, host := range g.Hosts {
		if host == "" || strings.ContainsAny(host, "/: \t") {
			return options.Errorf(fmt.Sprintf("hosts[%d]", i), "invalid host %q: must be a name without scheme and port", host)
		}
	}
	if len(g.Allow) == 0 {
		return nil
	}
	module, ok := Lookup(strings.TrimPrefix(addressFilter, Prefix))
	if !ok {
		return nil
	}
	filter := module.New().(Module)
	if err := json.Unmarshal(caddyconfig.JSON(map[string]any{"allow": g.Allow}, nil), filter); err != nil {
		return err
	}
	return filter.Check()
}

// ProvisionAccess loads the handlers that protect the endpoint.
func (g *ProtectedEndpoint) ProvisionAccess(ctx caddy.Context) error {
	if g.Allow == nil {
		g.Allow = []string{"private_ranges"}
	}
	filter, err := ctx.LoadModuleByID(namespace+"."+addressFilter, caddyconfig.JSON(map[string]any{"allow": g.Allow}, nil))
	if err != nil {
		return fmt.Errorf("loading the address filter of %s: %w", g.Path, err)
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
		return cmp.Compare(endpointRank(a), endpointRank(b))
	})
	return nil
}

// endpointRank returns the rank of a handler. Handlers without a rank are sorted last.
func endpointRank(handler caddyhttp.MiddlewareHandler) int {
	if module, ok := handler.(caddy.Module); ok {
		if rank := Rank(module.CaddyModule().ID.Name()); rank > 0 {
			return rank
		}
	}
	return len(kinds) + 1
}

// Serves reports whether a path is the endpoint's path or below it.
func (g *ProtectedEndpoint) Serves(path string) bool {
	rest, ok := strings.CutPrefix(path, g.Path)
	return ok && g.Path != "" && (rest == "" || rest[0] == '/')
}

// ServeProtected calls the handler for an allowed request and rejects other requests.
func (g *ProtectedEndpoint) ServeProtected(w http.ResponseWriter, r *http.Request, handler caddyhttp.HandlerFunc) error {
	if g.locality != nil {
		if err := g.locality.Check(r); err != nil {
			return g.filter.Refuse(w, r, http.StatusForbidden, err)
		}
	}
	next := caddyhttp.Handler(handler)
	for _, guard := range slices.Backward(g.handlers) {
		next = Before(guard, next)
	}
	return next.ServeHTTP(w, r)
}

// Interface guard
var _ options.HandlerLookup = (*ProtectedEndpoint)(nil)

// refuser is a policy with Base.Refuse.
type refuser interface {
	Refuse(w http.ResponseWriter, r *http.Request, status int, cause error) error
}

// Before returns a handler that calls a middleware with the next handler.
func Before(handler caddyhttp.MiddlewareHandler, next caddyhttp.Handler) caddyhttp.Handler {
	return caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return handler.ServeHTTP(w, r, next)
	})
}
