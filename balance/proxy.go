package balance

import (
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/dockerupstreams"
)

// proxyOf returns the reverse proxy whose selection policy is being provisioned, or nil
// if there is none. Its upstream source is not set until the proxy itself is provisioned.
func proxyOf(ctx caddy.Context) *reverseproxy.Handler {
	for _, module := range slices.Backward(ctx.Modules()) {
		if proxy, ok := module.(*reverseproxy.Handler); ok {
			return proxy
		}
	}
	return nil
}

// upstreamsOf returns the current upstreams of a proxy: a set of containers, or a static
// list. Both are nil if the upstreams depend on the request.
func upstreamsOf(proxy *reverseproxy.Handler) (*dockerupstreams.Set, reverseproxy.UpstreamPool) {
	switch {
	case proxy == nil:
		return nil, nil
	case proxy.DynamicUpstreams == nil:
		return nil, proxy.Upstreams
	}
	if source, ok := proxy.DynamicUpstreams.(dockerupstreams.SetSource); ok {
		return source.Set(), nil
	}
	return nil, nil
}
