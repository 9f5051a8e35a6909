// Package dockerupstreams discovers upstreams among the containers of Docker engines.
// It selects containers by label, follows the engines' events, and provides the current
// containers to a reverse proxy.
package dockerupstreams

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/dialing"
	"github.com/rgate/rgate/internal/entry"
	"github.com/rgate/rgate/internal/shutdown"
)

func init() {
	caddy.RegisterModule(new(Source))
}

// Source provides the Docker containers with certain labels as upstreams of a reverse
// proxy. It follows the engine's events, without reloads of the configuration. If
// Docker is unavailable at startup, there are no upstreams until it responds. During an
// outage, the known containers are kept.
//
// A reverse proxy has one transport and therefore one scheme for all its upstreams.
// Containers whose label `rgate.scheme` differs from the option `scheme` (default:
// `http`) receive no requests. With `https`, configure the trusted certificates in
// `transport http` (`tls_server_name`, `tls_trust_pool`, …): containers are dialed by
// IP address, which few certificates contain. With `h2c`, also set `transport http {
// versions h2c }`. The label `rgate.weight` is used by selection policies that support
// weights.
//
// Global placeholders such as `{env.STAGE}` are supported in the values of
// `match_labels`, in `network`, and in the addresses of endpoints.
type Source struct {
	Selector

	// The Docker engines whose containers are selected. An engine that cannot be
	// reached does not affect the others. Default: the engine of the DOCKER_HOST
	// environment variable, else the platform's default.
	Endpoints []Endpoint `json:"endpoints,omitempty"`

	scheme       string
	subscription *Subscription
	server       *caddyhttp.Server // the server whose handlers use the source
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
		return fmt.Errorf("subscribing to the Docker containers: %w", err)
	}
	if s.server, _ = ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); s.server != nil {
		s.warnOfUploads(ctx)
		if err := shutdown.Watch(ctx); err != nil {
			return err
		}
	}
	if proxy := dialing.ProxyOf(ctx); proxy != nil {
		return s.mount(ctx, proxy)
	}
	return nil
}

// mount configures the proxy whose upstreams the source provides.
func (s *Source) mount(ctx caddy.Context, proxy *reverseproxy.Handler) error {
	if proxy.HealthChecks != nil && proxy.HealthChecks.Active != nil && proxy.HealthChecks.Active.IsEnabled() && len(proxy.Upstreams) == 0 {
		return errors.New("active health checks do not apply to containers: " +
			"remove them, and use the HEALTHCHECK of the image, or passive health checks such as fail_duration")
	}
	return dialing.Mount(ctx, proxy, connections{s.subscription, s, proxy})
}

// connections implements dialing.Containers for a subscription.
type connections struct {
	*Subscription
	source *Source
	proxy  *reverseproxy.Handler
}

// Pool implements dialing.Containers.
func (c connections) Pool(dial string) string {
	if target := c.Set().ByDial(dial); target != nil {
		return target.Pool
	}
	return ""
}

// Instance implements dialing.Containers.
func (c connections) Instance(dial string) dialing.Instance {
	target := c.Set().ByDial(dial)
	if target == nil {
		return dialing.Instance{}
	}
	return dialing.Instance{ID: target.ID, Started: c.Started(target.ID)}
}

// CheckConnection implements dialing.Containers. The address of a container that was
// removed after its selection counts as labeled.
func (c connections) CheckConnection(dial string, conn net.Conn) error {
	if c.source.AllowsLocalAddresses() {
		return nil
	}
	target := c.Set().ByDial(dial)
	if target == nil && c.proxy.DynamicUpstreams != reverseproxy.UpstreamSource(c.source) {
		return nil // an upstream of another source
	}
	return dialing.CheckLocal(conn, target == nil || target.Labeled)
}

// unguarded holds the servers that warnOfUploads has checked.
var unguarded sync.Map

// warnOfUploads logs one warning per server with read_body_idle enabled and no rgate
// handler, which would protect uploads. With read_body_idle, Caddy hides an early close
// of a request body from net/http, which then parses the rest of an upload as new
// requests.
func (s *Source) warnOfUploads(ctx caddy.Context) {
	if s.server.ReadIdleTimeout < 0 {
		return
	}
	if _, known := unguarded.LoadOrStore(s.server, true); known || entry.Expected(ctx) {
		return
	}
	ctx.Logger().Warn("the unread rest of a request body may be parsed as new requests: "+
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

// GetUpstreams returns an upstream for each current container, sorted by name. Without
// containers, it returns an empty slice. It does not fail. After an outage of the engine,
// it waits for at most a second: see Subscription.Settled.
func (s *Source) GetUpstreams(r *http.Request) ([]*reverseproxy.Upstream, error) {
	if s.scheme == schemeHTTPS {
		r.URL.Scheme = schemeHTTPS // the proxy's copy of the request
	}
	return Upstreams(s.subscription.Settled(r.Context()).Targets), nil
}

// ResetCache schedules a new list of the containers and returns immediately. The proxy
// calls it after an upstream has failed.
func (s *Source) ResetCache(*http.Request) error {
	s.subscription.Refresh()
	return nil
}

// SetSource is an upstream source that also provides the containers behind the
// upstreams, so that a selection policy can use their names and weights.
type SetSource interface {
	reverseproxy.UpstreamSource

	// Set returns the current containers. It is lock-free. The set may be newer than
	// the upstreams of an earlier call of GetUpstreams.
	Set() *Set
}

// Set implements SetSource.
func (s *Source) Set() *Set { return s.subscription.Set() }

// Interface guards
var (
	_ caddy.Provisioner                  = (*Source)(nil)
	_ caddy.Validator                    = (*Source)(nil)
	_ caddy.CleanerUpper                 = (*Source)(nil)
	_ reverseproxy.UpstreamSource        = (*Source)(nil)
	_ reverseproxy.CachingUpstreamSource = (*Source)(nil)
	_ dialing.Containers                 = connections{}
	_ SetSource                          = (*Source)(nil)
)
