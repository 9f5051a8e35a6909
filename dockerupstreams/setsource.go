package dockerupstreams

import "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

// SetSource is a source of upstreams that are containers. It gives a selection policy
// their names and weights, which upstreams do not have. Subscription implements it.
type SetSource interface {
	reverseproxy.UpstreamSource

	// Set returns the current containers. It takes no lock. Earlier upstreams of the
	// source may be missing in it, and others may be new.
	Set() *Set
}

// Set implements SetSource.
func (s *Source) Set() *Set { return s.subscription.Set() }

var _ SetSource = (*Source)(nil)
