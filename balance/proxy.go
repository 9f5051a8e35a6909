package balance

import (
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/dockerupstreams"
)

// proxyOf returns the reverse proxy that a selection policy is being provisioned
// for, nil if there is none. Where its upstreams come from is known only once it
// is provisioned itself.
func proxyOf(ctx caddy.Context) *reverseproxy.Handler {
	for _, module := range slices.Backward(ctx.Modules()) {
		if proxy, ok := module.(*reverseproxy.Handler); ok {
			return proxy
		}
	}
	return nil
}

// upstreamsOf returns what the upstreams of a proxy are now: a set of containers,
// or a list that never changes. If they are neither, only each request's pool
// tells, and both are nil.
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
