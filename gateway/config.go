package gateway

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/dockerupstreams"
	"github.com/rgate/rgate/gateway/operations"
	"github.com/rgate/rgate/gateway/routing"
	"github.com/rgate/rgate/gateway/upstream"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/placeholder"
	"github.com/rgate/rgate/stats"
)

// Gateway is an API gateway for containers. It routes requests by their path to backends,
// which are Docker containers found by their labels, or static addresses, and it keeps
// statistics.
//
// Placeholders that it sets:
//
// Placeholder | Description
// ------------|-------------
// `{http.rgate.gateway}` | The name of the gateway
// `{http.rgate.route}` | The name of the route that matched
// `{http.rgate.backend}` | The name of the backend that the request went to
// `{http.rgate.param.NAME}` | The value of a pattern's segment `:NAME`; `{http.rgate.param.*}` of a `*` at its end. Empty if it has none
// `{http.rgate.container}` | The name of the container of the last attempt; empty for static addresses
type Gateway struct {
	// The name of the gateway in statistics, logs and metrics. Statistics outlive a reload
	// under this name; gateways with the same name share them. Default: `rgate`.
	Name string `json:"name,omitempty"`

	// The Docker engines whose containers are backends. Default: the engine in DOCKER_HOST,
	// else the default of the platform.
	Docker []dockerupstreams.Endpoint `json:"docker,omitempty"`

	// The statistics page. Default: enabled at `/stats`.
	Stats *stats.Config `json:"stats,omitempty"`

	// The endpoints for operators, and the log of the last requests. Default: off; the
	// admin API always has the endpoints under `/rgate/gateway`.
	Operations *operations.Config `json:"operations,omitempty"`

	// The response to requests that no route matches. Default: 404 with an empty body.
	DefaultResponse *DefaultResponse `json:"default_response,omitempty"`

	// Keeps the identity fields of requests, X-User-ID and X-Consumer-*, instead of removing
	// them. Set it only if a gateway in front of this one sets them and no other client can
	// reach this one. Default: false.
	TrustIdentity bool `json:"trust_identity,omitempty"`

	// The proxy fields to keep from clients that are not trusted proxies of the server, such
	// as `X-Forwarded-Prefix`. Clients can then send any value in them. Other fields such as
	// Forwarded, X-Forwarded-Prefix and CF-Connecting-IP are removed, and the gateway sets
	// X-Real-IP and X-Forwarded-Port. Default: none.
	KeepFields []string `json:"keep_fields,omitempty"`

	// The maximum number of times that a request may pass this process, 1 to 1000. A gateway
	// that is its own backend, directly or through others, responds with 508 at the limit.
	// Default: 5. 0 disables the limit.
	MaxHops *int `json:"max_hops,omitempty"`

	// The names of behaviours of an earlier version to restore, so that you can upgrade first
	// and adapt the configuration later. Default: none.
	Legacy []string `json:"legacy,omitempty"`

	// The handlers for every route. Policies, whose names begin with `rgate_`, run in a fixed
	// order; those of a route or a group replace those of the gateway. Other handlers run in
	// the order given, before those of groups and routes. Handlers that may respond run
	// after authentication.
	HandlersRaw []json.RawMessage `json:"handle,omitempty" caddy:"namespace=http.handlers inline_key=handler"`

	// The routes to backends. The most specific route wins, regardless of the order: of
	// several prefixes, the longest.
	Routes []*Route `json:"routes,omitempty"`

	// Groups of routes with common options.
	Groups []*Group `json:"groups,omitempty"`

	// The backends of the routes.
	Backends []*Backend `json:"backends,omitempty"`

	state
}

// DefaultResponse is the response to requests that no route matches.
type DefaultResponse struct {
	// The body. Its content type is JSON if it is valid JSON, else plain text. Default: empty.
	Body string `json:"body,omitempty"`

	// The status code, 200 to 599. Default: 404.
	StatusCode int `json:"status_code,omitempty"`
}

// Route sends requests to a backend.
type Route struct {
	// The route's name in statistics, logs and metrics. Default: the path prefix,
	// after its methods and hosts and before its conditions on the query and headers,
	// if it has any.
	Name string `json:"name,omitempty"`

	// A prefix or a pattern of the paths of the route. Required unless a group of the route
	// has one; begins with `/`. It is compared with the decoded path, and case matters.
	//
	// In a pattern, a segment `:name` matches any segment, which becomes the placeholder
	// `{http.rgate.param.name}`. A segment `*` matches any segment, too; at the end, it
	// matches the rest of the path, which becomes `{http.rgate.param.*}`. A pattern matches
	// whole paths: `/users/:id` matches neither `/users/7/` nor `/users/7/orders`,
	// `/users/:id/*` matches both.
	PathPrefix string `json:"path_prefix"`

	// How the prefix matches. `prefix` allows anything after it: `/api/pay` matches
	// `/api/payment`. `segment` allows only the prefix itself, or a slash after it. With
	// match, path_prefix is not a pattern. Default: `prefix`.
	Match string `json:"match,omitempty"`

	// The request methods of the route; GET includes HEAD. If only the method does not
	// match, the response is 405 with an Allow header. Default: all.
	Methods []string `json:"methods,omitempty"`

	// The hosts of the route: names, or `*.example.com` for any one label. At the same
	// prefix, a route with hosts takes precedence. Default: all.
	Hosts []string `json:"hosts,omitempty"`

	// The header fields that a request must have, each with one of the values. A `*` at the
	// beginning or end of a value matches anything; null requires that the field is absent.
	// Default: no condition.
	Headers caddyhttp.MatchHeader `json:"headers,omitempty"`

	// The query parameters that a request must have, each with one of the values; `*` matches
	// any value. Default: no condition.
	Query caddyhttp.MatchQuery `json:"query,omitempty"`

	// Marks the responses of the route as deprecated. Default: that of the group.
	Deprecated *Deprecation `json:"deprecated,omitempty"`

	// Removes the prefix from the path that the backend gets; of a pattern, everything before
	// the `*` at its end. Default: false.
	StripPrefix bool `json:"strip_prefix,omitempty"`

	// The time limits for the backend. Default: those of the backend.
	Timeouts *Timeouts `json:"timeouts,omitempty"`

	// The handlers of the route, in the order in which they run; policies have a fixed order.
	HandlersRaw []json.RawMessage `json:"handle,omitempty" caddy:"namespace=http.handlers inline_key=handler"`

	// The name of the backend. Required without backends.
	Backend string `json:"backend,omitempty"`

	// Several backends, each with a share of the requests. Excludes backend.
	Backends []*Share `json:"backends,omitempty"`

	// The key that assigns requests to one of several backends: requests with the same value
	// go to the same backend. If a weight changes, requests move only to or from that
	// backend. A text with placeholders such as `{http.request.cookie.session}` or
	// `{http.rgate.param.id}`, which is evaluated before any handler runs. Requests with an
	// empty key are assigned at random. Default: none.
	StickyKey string `json:"sticky_key,omitempty"`

	matcher       *routing.Route
	everyResponse []orderedHandler // the policies that every response needs
	sticky        placeholder.Key  // of StickyKey
	name          string
	weighted      []weightedBackend
	limits        upstream.Limits
}

// Share is one of several backends of a route.
type Share struct {
	// The name of the backend. Required.
	Name string `json:"name"`

	// Its weight relative to the other backends, 0 to 1,000,000. At least one must be above 0.
	Weight int `json:"weight"`
}

// Group is a group of routes with common options, such as one version of an API.
type Group struct {
	// The prefix of the path_prefix of all its routes. Begins with `/`. With segments `:name`
	// or `*`, all of its routes are patterns. Default: none.
	PathPrefix string `json:"path_prefix,omitempty"`

	// The hosts of routes without hosts.
	Hosts []string `json:"hosts,omitempty"`

	// The header fields that a request must have, in addition to those of the routes.
	Headers caddyhttp.MatchHeader `json:"headers,omitempty"`

	// The query parameters that a request must have, in addition to those of the routes.
	Query caddyhttp.MatchQuery `json:"query,omitempty"`

	// Marks the responses of the routes as deprecated.
	Deprecated *Deprecation `json:"deprecated,omitempty"`

	// The handlers that run before those of the routes, in this order; policies have a fixed
	// order.
	HandlersRaw []json.RawMessage `json:"handle,omitempty" caddy:"namespace=http.handlers inline_key=handler"`

	// The routes.
	Routes []*Route `json:"routes,omitempty"`

	// The inner groups, which inherit these options.
	Groups []*Group `json:"groups,omitempty"`
}

// Deprecation adds header fields that mark responses as deprecated.
type Deprecation struct {
	// The date of the deprecation, such as 2026-12-31 or 2026-12-31T12:00:00Z, in the past or
	// the future. It is sent in the Deprecation field (RFC 9745). Default: 1970-01-01.
	Since string `json:"since,omitempty"`

	// The date of the removal, in the same form. It is sent in the Sunset field (RFC 8594).
	// Default: none.
	Sunset string `json:"sunset,omitempty"`

	// The URL of a page with details. It is sent in a Link field with the relation
	// `deprecation`. Default: none.
	Link string `json:"link,omitempty"`
}

// Backend is a service: the containers with its labels, or static addresses.
type Backend struct {
	// The backend's name. Required, unique.
	Name string `json:"name"`

	dockerupstreams.Selector

	// Static addresses (`host:port`). Excludes `match_labels` and the other options for
	// containers, except for `scheme`.
	Dial []string `json:"dial,omitempty"`

	// Lets instances register themselves, in addition to `match_labels` or `dial`, or without
	// them. Requires `operations.registration`. Default: false.
	Register bool `json:"register,omitempty"`

	// The selection policy of Caddy's reverse proxy that chooses the container. Default:
	// random.
	LBPolicyRaw json.RawMessage `json:"lb_policy,omitempty" caddy:"namespace=http.reverse_proxy.selection_policies inline_key=policy"`

	// The protocols that a client may switch to, as the Upgrade field names them. Others are
	// removed from its offer, and the request is served without them. Those in which
	// requests of HTTP would pass by the policies, such as `h2c`, are refused.
	// Default: `websocket` alone.
	Upgrades []string `json:"upgrades,omitempty"`

	// The maximum number of retries on other upstreams. A request is retried after a failed
	// dial, and after a connection lost before the response if it is a GET, HEAD or OPTIONS
	// without a body. Default: 2. 0 disables retries.
	Retries *int `json:"retries,omitempty"`

	// The budget of retries, so that they do not multiply an overload. Default: no limit.
	RetryBudget *RetryBudget `json:"retry_budget,omitempty"`

	// The time limits for the backend.
	Timeouts *Timeouts `json:"timeouts,omitempty"`

	// Any other option of Caddy's `reverse_proxy` handler, in its JSON form,
	// except for `upstreams` and `dynamic_upstreams`.
	ProxyRaw json.RawMessage `json:"proxy,omitempty"`

	// The handlers around the proxy, the first outermost; policies have a fixed order.
	AroundRaw []json.RawMessage `json:"around,omitempty" caddy:"namespace=http.handlers inline_key=handler"`

	service    *upstream.Service
	around     []loadedHandler
	standalone caddyhttp.Handler // the service and what is around it, without any route
}

// Timeouts are the time limits for a backend. 0 disables a limit.
type Timeouts struct {
	// The time to establish a connection. Default: 3s. 0 disables the limit: the
	// system's own remains.
	Dial options.Timeout `json:"dial,omitempty"`

	// The time from the end of the request to the beginning of the response, after which the
	// client gets 504. Default: 60s. 0 disables the limit.
	FirstByte options.Timeout `json:"first_byte,omitempty"`

	// The time for the request, its retries and the response body, also for WebSockets and
	// streams. The client gets 504, or the connection is closed if the response has begun.
	// Default: no limit. On a route, 0 disables the backend's limit.
	Total options.Timeout `json:"total,omitempty"`
}

// RetryBudget limits the retries of a backend. Failures beyond it are not retried.
type RetryBudget struct {
	// The maximum ratio of retries to the requests of the last ten seconds, 0 to 1. Default:
	// 0.2.
	Ratio *float64 `json:"ratio,omitempty" caddyfile:"arg"`

	// The number of retries per second that are allowed regardless of the ratio, 0 to 1000.
	// Ten times as many are allowed at once. Default: 10.
	MinPerSecond *int `json:"min_per_second,omitempty" caddyfile:"arg"`
}
