package dockerupstreams

import "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

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

var _ SetSource = (*Source)(nil)
