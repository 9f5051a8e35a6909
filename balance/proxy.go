package balance

import (
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/dockerupstreams"
)

// proxyOf returns the reverse proxy for which a selection policy is being provisioned,
// or nil. The source of its upstreams is known only after its own provisioning.
func proxyOf(ctx caddy.Context) *reverseproxy.Handler {
	for _, module := range slices.Backward(ctx.Modules()) {
		if proxy, ok := module.(*reverseproxy.Handler); ok {
			return proxy
		}
	}
	return nil
}

// upstreamsOf returns the current upstreams of a proxy: a set of containers, or a list
// that never changes. Both are nil if the upstreams are only known per request.
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
