package upstream

import (
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/dockerupstreams"
)

// containerSource provides Caddy's proxy with the containers of a service.
type containerSource struct{ *dockerupstreams.Subscription }

// GetUpstreams implements reverseproxy.UpstreamSource.
func (c containerSource) GetUpstreams(r *http.Request) ([]*reverseproxy.Upstream, error) {
	state := requestOf(r)
	if state == nil {
		return dockerupstreams.Upstreams(c.Settled(r.Context()).Targets), nil
	}
	set := c.Set()
	if state.probe == nil && !state.settled { // reports do not wait, and requests wait once
		set, state.settled = c.Settled(r.Context()), true
	}
	state.attempt.set, state.attempt.containers = set, c.Subscription
	return dockerupstreams.Upstreams(set.Targets), nil
}

// ResetCache implements reverseproxy.CachingUpstreamSource. The proxy calls it before a
// retry, because the failed container may have been removed.
func (c containerSource) ResetCache(*http.Request) error {
	c.Refresh()
	return nil
}

// multiSource provides Caddy's proxy with the containers or static addresses of a
// service and its registered instances. Selection policies identify them by address.
type multiSource struct{ *Service }

// GetUpstreams implements reverseproxy.UpstreamSource.
func (m multiSource) GetUpstreams(r *http.Request) (all []*reverseproxy.Upstream, err error) {
	if m.options.Containers != nil {
		if all, err = (containerSource{m.options.Containers}).GetUpstreams(r); err != nil {
			return nil, err
		}
	}
	for _, dial := range slices.Concat(m.options.Dial, m.options.Registered()) {
		all = append(all, &reverseproxy.Upstream{Dial: dial})
	}
	return all, nil
}

// ResetCache implements reverseproxy.CachingUpstreamSource.
func (m multiSource) ResetCache(r *http.Request) error {
	if m.options.Containers == nil {
		return nil
	}
	return containerSource{m.options.Containers}.ResetCache(r)
}

// Interface guards
var (
	_ reverseproxy.CachingUpstreamSource = containerSource{}
	_ reverseproxy.CachingUpstreamSource = multiSource{}
)
