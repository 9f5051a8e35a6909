package balance

import (
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/dockerupstreams"
)

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
