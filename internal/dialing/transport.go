package dialing

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/failure"
)

// UsePool makes a transport send a request on connections of a pool. pool is the host
// and port of the upstream with additional digits in the port, which differ between
// containers. A container that reuses the address of another one therefore does not get
// requests on the other one's idle connections. Caddy dials the address of the selected
// upstream instead, and certificates are checked for the host. Requests through a forward
// proxy are not changed.
func UsePool(r *http.Request, t *reverseproxy.HTTPTransport, pool string) {
	if len(t.Versions) == 1 && t.Versions[0] == "3" {
		return // HTTP/3 dials the host of the URL
	}
	t.SetScheme(r) // depends on the port
	if proxy, err := t.Transport.Proxy(r); proxy != nil || err != nil {
		return
	}
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	if t.ProxyProtocol != "" { // the host is the address of the client as well
		pool = r.URL.Host + "-" + url.QueryEscape(pool)
	}
	r.URL.Host = pool
}

// ProxyOf returns the reverse proxy whose selection policy or upstream source is being
// provisioned, or nil if there is none. Its upstream source is not set until the proxy
// itself is provisioned.
func ProxyOf(ctx caddy.Context) *reverseproxy.Handler {
	for _, module := range slices.Backward(ctx.Modules()) {
		if proxy, ok := module.(*reverseproxy.Handler); ok {
			return proxy
		}
	}
	return nil
}

// TransportOf returns the transport of a proxy that is being provisioned. It loads the
// default transport, which the proxy would create later.
func TransportOf(ctx caddy.Context, proxy *reverseproxy.Handler) (http.RoundTripper, error) {
	if proxy.Transport == nil {
		module, err := ctx.LoadModuleByID("http.reverse_proxy.transport.http", nil)
		if err != nil {
			return nil, fmt.Errorf("loading the default transport: %w", err)
		}
		proxy.Transport = module.(http.RoundTripper)
	}
	return proxy.Transport, nil
}

// Wrapper wraps a transport and forwards the optional interfaces of Caddy's transports.
// Caddy provides no other way to observe the round trips of a proxy.
type Wrapper struct{ http.RoundTripper }

// Unwrap returns the wrapped transport.
func (c Wrapper) Unwrap() http.RoundTripper { return c.RoundTripper }

// RequestHeaderOps implements reverseproxy.RequestHeaderOpsTransport.
func (c Wrapper) RequestHeaderOps() *headers.HeaderOps {
	if inner, ok := c.RoundTripper.(reverseproxy.RequestHeaderOpsTransport); ok {
		return inner.RequestHeaderOps()
	}
	return nil
}

// ProxyProtocolEnabled implements reverseproxy.ProxyProtocolTransport.
func (c Wrapper) ProxyProtocolEnabled() bool {
	inner, ok := c.RoundTripper.(reverseproxy.ProxyProtocolTransport)
	return ok && inner.ProxyProtocolEnabled()
}

// RequiresContentLength implements reverseproxy.ContentLengthRequiredTransport.
func (c Wrapper) RequiresContentLength() bool {
	inner, ok := c.RoundTripper.(reverseproxy.ContentLengthRequiredTransport)
	return ok && inner.RequiresContentLength()
}

// OverrideHealthCheckScheme implements
// reverseproxy.HealthCheckSchemeOverriderTransport.
func (c Wrapper) OverrideHealthCheckScheme(base *url.URL, port string) {
	if inner, ok := c.RoundTripper.(reverseproxy.HealthCheckSchemeOverriderTransport); ok {
		inner.OverrideHealthCheckScheme(base, port)
	}
}

// HTTPTransportOf returns the HTTP transport within wrappers, or nil if there is none.
func HTTPTransportOf(transport http.RoundTripper) *reverseproxy.HTTPTransport {
	for {
		switch t := transport.(type) {
		case *reverseproxy.HTTPTransport:
			return t
		case interface{ Unwrap() http.RoundTripper }:
			transport = t.Unwrap()
		default:
			return nil
		}
	}
}

// Containers provides the containers of a reverse proxy.
type Containers interface {
	// Pool returns the connection pool for UsePool of the container with an address, or
	// "" if there is none.
	Pool(dial string) string

	// Instance returns the process behind an address.
	Instance(dial string) Instance

	// CheckConnection returns an error if a connection to an address must not be used.
	CheckConnection(dial string, conn net.Conn) error
}

// Mount makes a reverse proxy that is being provisioned connect to containers as a
// gateway does: it avoids addresses after a failed dial, separates connections of
// containers with the same address, and forwards the client's Host over HTTPS.
func Mount(ctx caddy.Context, proxy *reverseproxy.Handler, containers Containers) error {
	inner, err := TransportOf(ctx, proxy)
	if err != nil {
		return err
	}
	t := &containerTransport{Wrapper: Wrapper{inner}, http: HTTPTransportOf(inner), containers: containers}
	if t.http != nil {
		CheckConnections(t.http, containers.CheckConnection)
	}
	proxy.Transport = t
	if proxy.LoadBalancing == nil {
		proxy.LoadBalancing = new(reverseproxy.LoadBalancing)
	}
	if proxy.LoadBalancing.SelectionPolicy == nil {
		proxy.LoadBalancing.SelectionPolicy = reverseproxy.RandomSelection{}
	}
	proxy.LoadBalancing.SelectionPolicy = restSelector{proxy.LoadBalancing.SelectionPolicy, t}
	return nil
}

// containerTransport is the transport of a reverse proxy that forwards to containers.
type containerTransport struct {
	Wrapper
	http       *reverseproxy.HTTPTransport // nil: the transport is not HTTP
	containers Containers
	rests      Rests
}

// RoundTrip implements http.RoundTripper.
func (t *containerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	info, ok := reverseproxy.GetDialInfo(r.Context())
	if !ok || info.Upstream == nil {
		return t.Wrapper.RoundTrip(r)
	}
	dial := info.Upstream.Dial
	if pool := t.containers.Pool(dial); pool != "" && t.http != nil {
		UsePool(r, t.http, pool)
	}
	response, err := t.Wrapper.RoundTrip(r)
	if err == nil {
		t.rests.Succeeded(dial)
	} else if result := failure.ClassifyRequest(r, 0, err); result.Cause == failure.Backend && result.Unsent {
		t.rests.Failed(dial, t.containers.Instance(dial), err)
	}
	return response, err
}

// RequestHeaderOps implements reverseproxy.RequestHeaderOpsTransport. Caddy's transport
// would replace the client's Host with the address of the container.
func (*containerTransport) RequestHeaderOps() *headers.HeaderOps { return nil }

// restSelector is a selection policy that restricts another one to upstreams that do not
// rest.
type restSelector struct {
	reverseproxy.Selector
	transport *containerTransport
}

// Select implements reverseproxy.Selector.
func (s restSelector) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	if s.transport.rests.Empty() {
		return s.Selector.Select(pool, r, w)
	}
	return s.transport.rests.Select(s.Selector, pool, r, w, s.transport.containers.Instance)
}

// Interface guards
var (
	_ reverseproxy.RequestHeaderOpsTransport           = (*containerTransport)(nil)
	_ reverseproxy.ProxyProtocolTransport              = (*containerTransport)(nil)
	_ reverseproxy.ContentLengthRequiredTransport      = (*containerTransport)(nil)
	_ reverseproxy.HealthCheckSchemeOverriderTransport = (*containerTransport)(nil)
	_ reverseproxy.Selector                            = restSelector{}
)
