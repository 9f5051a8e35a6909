package balance

import (
	"context"
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/dialing"
	"github.com/rgate/rgate/internal/monotime"
)

// timedTransport is a transport that measures round trips.
type timedTransport struct {
	dialing.Wrapper
	table *table
}

// timeRoundTrips wraps the transport of a proxy that is being provisioned.
func timeRoundTrips(ctx caddy.Context, proxy *reverseproxy.Handler, t *table) error {
	inner, err := dialing.TransportOf(ctx, proxy)
	if err != nil {
		return err
	}
	if _, ok := inner.(*timedTransport); !ok {
		proxy.Transport = &timedTransport{dialing.Wrapper{RoundTripper: inner}, t}
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

// Around returns a timedTransport that wraps another transport.
func (c *timedTransport) Around(inner http.RoundTripper) http.RoundTripper {
	return &timedTransport{dialing.Wrapper{RoundTripper: inner}, c.table}
}

// Interface guards
var (
	_ reverseproxy.RequestHeaderOpsTransport           = (*timedTransport)(nil)
	_ reverseproxy.ProxyProtocolTransport              = (*timedTransport)(nil)
	_ reverseproxy.ContentLengthRequiredTransport      = (*timedTransport)(nil)
	_ reverseproxy.HealthCheckSchemeOverriderTransport = (*timedTransport)(nil)
)
