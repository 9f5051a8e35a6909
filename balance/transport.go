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
)

// clock is a transport that takes the time of round trips of another one. To the
// proxy it is otherwise like that one.
type clock struct {
	http.RoundTripper
	table *table
}

// timeRoundTrips puts a clock around the transport of a proxy that is being
// provisioned. Of all that Caddy tells a selection policy or lets it see, nothing
// says how long a certain upstream took.
func timeRoundTrips(ctx caddy.Context, proxy *reverseproxy.Handler, t *table) error {
	if proxy.Transport == nil { // then the proxy would make this one later
		module, err := ctx.LoadModuleByID("http.reverse_proxy.transport.http", nil)
		if err != nil {
			return fmt.Errorf("loading the default transport: %w", err)
		}
		proxy.Transport = module.(http.RoundTripper)
	}
	if _, ok := proxy.Transport.(*clock); !ok {
		proxy.Transport = &clock{proxy.Transport, t}
	}
	return nil
}

// RoundTrip implements http.RoundTripper.
func (c *clock) RoundTrip(r *http.Request) (*http.Response, error) {
	info, ok := reverseproxy.GetDialInfo(r.Context())
	if !ok || info.Upstream == nil || r.Context().Value(caddyhttp.ServerCtxKey) == nil {
		return c.RoundTripper.RoundTrip(r) // a health check
	}
	begun := now()
	h := c.table.of(info.Upstream.Dial, begun)
	h.waiting.Add(1)
	defer h.waiting.Add(-1)
	response, err := c.RoundTripper.RoundTrip(r)
	ended := now()
	switch {
	case err == nil && response.StatusCode < http.StatusInternalServerError:
		h.answered(ended, ended-begun)
	case errors.Is(err, context.Canceled):
		h.abandoned(ended, ended-begun)
	default:
		h.broke(ended)
	}
	return response, err
}

// Unwrap returns the transport whose time is taken.
func (c *clock) Unwrap() http.RoundTripper { return c.RoundTripper }

// Around returns a transport like c around another one.
func (c *clock) Around(inner http.RoundTripper) http.RoundTripper {
	return &clock{inner, c.table}
}

// RequestHeaderOps implements reverseproxy.RequestHeaderOpsTransport.
func (c *clock) RequestHeaderOps() *headers.HeaderOps {
	if inner, ok := c.RoundTripper.(reverseproxy.RequestHeaderOpsTransport); ok {
		return inner.RequestHeaderOps()
	}
	return nil
}

// ProxyProtocolEnabled implements reverseproxy.ProxyProtocolTransport.
func (c *clock) ProxyProtocolEnabled() bool {
	inner, ok := c.RoundTripper.(reverseproxy.ProxyProtocolTransport)
	return ok && inner.ProxyProtocolEnabled()
}

// RequiresContentLength implements reverseproxy.ContentLengthRequiredTransport.
func (c *clock) RequiresContentLength() bool {
	inner, ok := c.RoundTripper.(reverseproxy.ContentLengthRequiredTransport)
	return ok && inner.RequiresContentLength()
}

// OverrideHealthCheckScheme implements
// reverseproxy.HealthCheckSchemeOverriderTransport.
func (c *clock) OverrideHealthCheckScheme(base *url.URL, port string) {
	if inner, ok := c.RoundTripper.(reverseproxy.HealthCheckSchemeOverriderTransport); ok {
		inner.OverrideHealthCheckScheme(base, port)
	}
}

// Interface guards
var (
	_ reverseproxy.RequestHeaderOpsTransport           = (*clock)(nil)
	_ reverseproxy.ProxyProtocolTransport              = (*clock)(nil)
	_ reverseproxy.ContentLengthRequiredTransport      = (*clock)(nil)
	_ reverseproxy.HealthCheckSchemeOverriderTransport = (*clock)(nil)
)
