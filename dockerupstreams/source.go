package dockerupstreams

import (
	"cmp"
	"fmt"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/entry"
)

func init() {
	caddy.RegisterModule(new(Source))
}

// Source provides the Docker containers that carry certain labels as upstreams
// of a reverse proxy. Containers come and go with the engine's events; the
// configuration is never reloaded for them. Without Docker it starts with no
// upstreams, and during an outage it keeps those it knew last.
//
// A reverse proxy has one transport for all its upstreams, and therefore one
// scheme: containers whose label `rgate.scheme` differs from the option `scheme`
// (default `http`) get no requests. With `https`, name what to trust in
// `transport http` (`tls_server_name`, `tls_trust_pool`, …): a container is
// dialed by its address, which is in few certificates. With `h2c`, also set
// `transport http { versions h2c }`. The labels `rgate.weight` are left to
// policies that ask for them.
//
// Global placeholders, such as `{env.STAGE}`, may be used in the values of
// `match_labels`, in `network`, and in the addresses of endpoints.
type Source struct {
	Selector

	// The Docker engines in which containers are looked for. If one cannot be
	// reached, those of the others are not affected. Default: the one that
	// DOCKER_HOST names, else the platform's own.
	Endpoints []Endpoint `json:"endpoints,omitempty"`

	scheme       string
	subscription *Subscription
	server       *caddyhttp.Server // that it is in
}

// CaddyModule returns the Caddy module information.
func (*Source) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.upstreams.docker_labels",
		New: func() caddy.Module { return new(Source) },
	}
}

// Provision subscribes to the containers. It does not wait for Docker.
func (s *Source) Provision(ctx caddy.Context) error {
	sel := s.Selector
	s.scheme = cmp.Or(sel.Scheme, schemeHTTP)
	if err := RegisterMetrics(ctx); err != nil {
		return err
	}
	if err := sel.Validate(); err != nil {
		return err
	}
	sel.Scheme, sel.onlyScheme = "", s.scheme
	var err error
	if s.subscription, err = Subscribe(s.Endpoints, sel, ctx.Logger()); err != nil {
		return fmt.Errorf("following docker containers: %w", err)
	}
	s.server, _ = ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	s.warnOfUploads(ctx)
	return nil
}

// unguarded are the servers for which warnOfUploads has warned.
var unguarded sync.Map

// warnOfUploads warns once of a server in which rgate does not guard request bodies: with
// its limit on pauses (read_body_idle), Caddy hides from net/http that a body was closed
// before its end, so that the rest of an upload is run as new requests.
func (s *Source) warnOfUploads(ctx caddy.Context) {
	if s.server == nil || s.server.ReadIdleTimeout < 0 {
		return
	}
	if _, known := unguarded.LoadOrStore(s.server, true); known || entry.Expected(ctx) {
		return
	}
	ctx.Logger().Warn("the rest of an upload that a backend does not read may be run as new requests: "+
		"set servers { timeouts { read_body_idle -1s } }, or use a handler of rgate in this site",
		zap.Strings("listen", s.server.Listen))
}

// Cleanup ends the subscription.
func (s *Source) Cleanup() error {
	unguarded.Delete(s.server)
	if s.subscription == nil {
		return nil
	}
	return s.subscription.Close()
}

// GetUpstreams returns the containers as they are now, sorted by name. It is
// instant, never fails, and returns an empty slice if there are none.
func (s *Source) GetUpstreams(r *http.Request) ([]*reverseproxy.Upstream, error) {
	if s.scheme == schemeHTTPS {
		r.URL.Scheme = schemeHTTPS // this is the proxy's own copy of the request
	}
	return Upstreams(s.subscription.Set().Targets), nil
}

// ResetCache is called after an upstream failed: it asks for a new look at the
// containers, and does not wait for it.
func (s *Source) ResetCache(*http.Request) error {
	s.subscription.Refresh()
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner                  = (*Source)(nil)
	_ caddy.Validator                    = (*Source)(nil)
	_ caddy.CleanerUpper                 = (*Source)(nil)
	_ reverseproxy.UpstreamSource        = (*Source)(nil)
	_ reverseproxy.CachingUpstreamSource = (*Source)(nil)
)
