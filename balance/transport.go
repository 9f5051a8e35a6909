package balance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/monotime"
)

// timedTransport is a transport that measures round trips.
type timedTransport struct {
	http.RoundTripper
	table *table
}

// timeRoundTrips wraps the transport of a proxy that is being provisioned. Caddy provides
// no other way for a selection policy to measure latencies.
func timeRoundTrips(ctx caddy.Context, proxy *reverseproxy.Handler, t *table) error {
	if proxy.Transport == nil { // otherwise the proxy creates the default one later
		module, err := ctx.LoadModuleByID("http.reverse_proxy.transport.http", nil)
		if err != nil {
			return fmt.Errorf("loading the default transport: %w", err)
		}
		proxy.Transport = module.(http.RoundTripper)
	}
	if _, ok := proxy.Transport.(*timedTransport); !ok {
		proxy.Transport = &timedTransport{proxy.Transport, t}
	}
	return nil
}

// RoundTrip implements http.RoundTripper.
func (c *timedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	info, ok := reverseproxy.GetDialInfo(r.Context())
	if !ok || info.Upstream == nil || r.Context().Value(caddyhttp.ServerCtxKey) == nil {
		return c.RoundTripper.RoundTrip(r) // health check
	}
	begun := monotime.Now()
	h := c.table.of(info.Upstream.Dial, begun)
	h.waiting.Add(1)
	defer h.waiting.Add(-1)
	response, err := c.RoundTripper.RoundTrip(r)
	ended := monotime.Now()
	switch {
	case err == nil && response.StatusCode < http.StatusInternalServerError:
		h.responded(ended, ended-begun)
	case errors.Is(err, context.Canceled):
		h.abandoned(ended, ended-begun)
	default:
		h.broke(ended)
	}
	return response, err
}

// Unwrap returns the wrapped transport.
func (c *timedTransport) Unwrap() http.RoundTripper { return c.RoundTripper }

// Around returns a timedTransport that wraps another transport.
func (c *timedTransport) Around(inner http.RoundTripper) http.RoundTripper {
	return &timedTransport{inner, c.table}
}

// RequestHeaderOps implements reverseproxy.RequestHeaderOpsTransport.
func (c *timedTransport) RequestHeaderOps() *headers.HeaderOps {
	if inner, ok := c.RoundTripper.(reverseproxy.RequestHeaderOpsTransport); ok {
		return inner.RequestHeaderOps()
	}
	return nil
}

// ProxyProtocolEnabled implements reverseproxy.ProxyProtocolTransport.
func (c *timedTransport) ProxyProtocolEnabled() bool {
	inner, ok := c.RoundTripper.(reverseproxy.ProxyProtocolTransport)
	return ok && inner.ProxyProtocolEnabled()
}

// RequiresContentLength implements reverseproxy.ContentLengthRequiredTransport.
func (c *timedTransport) RequiresContentLength() bool {
	inner, ok := c.RoundTripper.(reverseproxy.ContentLengthRequiredTransport)
	return ok && inner.RequiresContentLength()
}

// OverrideHealthCheckScheme implements
// reverseproxy.HealthCheckSchemeOverriderTransport.
func (c *timedTransport) OverrideHealthCheckScheme(base *url.URL, port string) {
	if inner, ok := c.RoundTripper.(reverseproxy.HealthCheckSchemeOverriderTransport); ok {
		inner.OverrideHealthCheckScheme(base, port)
	}
}

// Interface guards
var (
	_ reverseproxy.RequestHeaderOpsTransport           = (*timedTransport)(nil)
	_ reverseproxy.ProxyProtocolTransport              = (*timedTransport)(nil)
	_ reverseproxy.ContentLengthRequiredTransport      = (*timedTransport)(nil)
	_ reverseproxy.HealthCheckSchemeOverriderTransport = (*timedTransport)(nil)
)
