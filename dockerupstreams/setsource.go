package dockerupstreams

import "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

// SetSource is a source of upstreams that are containers. It tells a selection
// policy more of them than an upstream can: names and weights. A Subscription has
// the method, too.
type SetSource interface {
	reverseproxy.UpstreamSource

	// Set returns the containers as they are now. It is instant. Upstreams that
	// the source gave away before may be missing in it, or others be new.
	Set() *Set
}

// Set implements SetSource.
func (s *Source) Set() *Set { return s.subscription.Set() }

var _ SetSource = (*Source)(nil)
