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

// Gateway is an API gateway for containers. It routes requests by path to backends and
// records statistics. A backend consists of Docker containers, found by their labels, of
// static addresses, or of instances that register themselves.
//
// It sets these placeholders:
//
// Placeholder | Description
// ------------|-------------
// `{http.rgate.gateway}` | The name of the gateway
// `{http.rgate.route}` | The name of the matching route
// `{http.rgate.backend}` | The name of the backend that received the request
// `{http.rgate.param.NAME}` | The value of the pattern segment `:NAME`; `{http.rgate.param.*}` for `*` at the end. Empty without such a segment
// `{http.rgate.container}` | The name of the container of the last attempt. Empty for static addresses
type Gateway struct {
	// The name of the gateway in statistics, logs and metrics. Statistics are kept
	// across reloads under this name. Gateways with the same name share statistics.
	// Default: `rgate`.
	Name string `json:"name,omitempty"`

	// The Docker engines whose containers serve the backends. Default: the engine in
	// DOCKER_HOST, else the default of the platform.
	Docker []dockerupstreams.Endpoint `json:"docker,omitempty"`

	// The statistics page. Default: enabled at `/stats`.
	Stats *stats.Config `json:"stats,omitempty"`

	// The operations endpoints and the request log. Default: disabled. The admin API
	// always has the endpoints under `/rgate/gateway`.
	Operations *operations.Config `json:"operations,omitempty"`

	// The response to requests that no route matches. Default: 404 with an empty body.
	DefaultResponse *DefaultResponse `json:"default_response,omitempty"`

	// Whether to keep the identity fields of requests, X-User-ID and X-Consumer-*. Set
	// it only if another gateway sets them and clients cannot bypass that gateway.
	// Default: false, which removes the fields.
	TrustIdentity bool `json:"trust_identity,omitempty"`

	// The proxy fields to accept from untrusted clients, such as `X-Forwarded-Prefix`.
	// Clients can then send any value in them. Other fields such as Forwarded,
	// X-Forwarded-Prefix and CF-Connecting-IP are removed. The gateway sets X-Real-IP
	// and X-Forwarded-Port. Default: none.
	KeepFields []string `json:"keep_fields,omitempty"`

	// The maximum number of times that a request may pass this process, 1 to 1000. A
	// further pass is rejected with 508, which ends loops between gateways. Default: 5.
	// 0 disables the limit.
	MaxHops *int `json:"max_hops,omitempty"`

	// The time for which WebSockets and other upgraded connections stay open after a
	// reload. They continue with the configuration in which they began. Then they are
	// closed, as by `rgate reload --close`. `stream_close_delay` in the `proxy` of a
	// backend takes precedence. Default: 10m. 0 closes them at the reload.
	StreamCloseDelay options.Timeout `json:"stream_close_delay,omitempty"`

	// The behaviours of an earlier version to restore, by name. Use it to upgrade first
	// and adapt the configuration later. Default: none.
	Legacy []string `json:"legacy,omitempty"`

	// The handlers for every route. Policies, whose names begin with `rgate_`, run in a
	// fixed order. A policy of a route or a group replaces the same policy of the
	// gateway. Other handlers run in the configured order, before the handlers of groups and
	// routes. Handlers that may respond run after authentication.
	HandlersRaw []json.RawMessage `json:"handle,omitempty" caddy:"namespace=http.handlers inline_key=handler"`

	// The routes to backends. The most specific matching route is chosen, regardless of
	// the order. Of several prefixes, the longest is the most specific.
	Routes []*Route `json:"routes,omitempty"`

	// Groups of routes with common options.
	Groups []*Group `json:"groups,omitempty"`

	// The backends that routes can use.
	Backends []*Backend `json:"backends,omitempty"`

	state
}

// DefaultResponse is the response to requests that no route matches.
type DefaultResponse struct {
	// The response body. The content type is JSON if the body is valid JSON, else plain
	// text. Default: empty.
	Body string `json:"body,omitempty"`

	// The status code, 200 to 599. Default: 404.
	StatusCode int `json:"status_code,omitempty"`
}

// Route matches requests and sends them to a backend.
type Route struct {
	// The name of the route in statistics, logs and metrics. Default: the path prefix,
	// preceded by the methods and hosts, and followed by the query and header
	// conditions, if any.
	Name string `json:"name,omitempty"`

	// The path prefix or path pattern of the route. Required, unless a group of the
	// route has one. Must begin with `/`. It is compared with the decoded path. Case
	// matters.
	//
	// In a pattern, a segment `:name` matches any segment and sets the placeholder
	// `{http.rgate.param.name}`. A segment `*` also matches any segment. At the end,
	// `*` matches the rest of the path and sets `{http.rgate.param.*}`. A pattern
	// matches whole paths: `/users/:id` matches neither `/users/7/` nor
	// `/users/7/orders`, and `/users/:id/*` matches both.
	PathPrefix string `json:"path_prefix"`

	// The match type of the prefix. `prefix` allows any continuation: `/api/pay`
	// matches `/api/payment`. `segment` allows only the prefix itself or a slash after
	// it. With match, path_prefix cannot be a pattern. Default: `prefix`.
	Match string `json:"match,omitempty"`

	// The request methods of the route. GET includes HEAD. If only the method does not
	// match, the response is 405 with an Allow header. Default: all.
	Methods []string `json:"methods,omitempty"`

	// The hosts of the route: names, or `*.example.com` for any single label. At the
	// same prefix, a route with hosts takes precedence. Default: all.
	Hosts []string `json:"hosts,omitempty"`

	// The header fields that a request must have, each with one of the values. A `*` at
	// the beginning or end of a value matches any text. null requires that the field is
	// absent. Default: no condition.
	Headers caddyhttp.MatchHeader `json:"headers,omitempty"`

	// The query parameters that a request must have, each with one of the values. `*`
	// matches any value. Default: no condition.
	Query caddyhttp.MatchQuery `json:"query,omitempty"`

	// Marks the responses of the route as deprecated. Default: the group's option.
	Deprecated *Deprecation `json:"deprecated,omitempty"`

	// Whether to remove the prefix from the path before the request is sent to the
	// backend. For a pattern, everything before the `*` at its end is removed. Default:
	// false.
	StripPrefix bool `json:"strip_prefix,omitempty"`

	// The time limits for the backend. Default: the backend's limits.
	Timeouts *Timeouts `json:"timeouts,omitempty"`

	// The handlers of the route. Policies run in a fixed order, other handlers in the
	// configured order.
	HandlersRaw []json.RawMessage `json:"handle,omitempty" caddy:"namespace=http.handlers inline_key=handler"`

	// The name of the backend. Required, unless backends is set.
	Backend string `json:"backend,omitempty"`

	// Several backends with weights, among which requests are distributed. Cannot be
	// combined with backend.
	Backends []*Share `json:"backends,omitempty"`

	// The key that assigns requests to one of several backends. Requests with the same
	// value go to the same backend. If the weight of a backend changes, requests move
	// only to or from that backend. The key contains placeholders such as
	// `{http.request.cookie.session}` or `{http.rgate.param.id}`, which are evaluated
	// before any handler runs. Requests with an empty key are assigned at random.
	// Default: none.
	StickyKey string `json:"sticky_key,omitempty"`

	matcher       *routing.Route
	everyResponse []orderedHandler // policies that apply to every response
	sticky        placeholder.Key  // StickyKey, parsed
	name          string
	weighted      []weightedBackend
	limits        upstream.Limits
}

// Share is a backend of a route and its weight.
type Share struct {
	// The name of the backend. Required.
	Name string `json:"name"`

	// The weight relative to the other backends, 0 to 1,000,000. At least one must be
	// above 0. Default: 0.
	Weight int `json:"weight"`
}

// Group is a group of routes with common options, such as one version of an API.
type Group struct {
	// The prefix to prepend to the path_prefix of all routes in the group. Must begin
	// with `/` and not end with `/*`. If it has a segment `:name` or `*`, all routes of
	// the group are patterns. Default: none.
	PathPrefix string `json:"path_prefix,omitempty"`

	// The hosts of routes that set none. Default: all.
	Hosts []string `json:"hosts,omitempty"`

	// The header fields that a request must have, in addition to the conditions of the
	// routes. Default: no condition.
	Headers caddyhttp.MatchHeader `json:"headers,omitempty"`

	// The query parameters that a request must have, in addition to the conditions of
	// the routes. Default: no condition.
	Query caddyhttp.MatchQuery `json:"query,omitempty"`

	// Marks the responses of the routes as deprecated. Default: not deprecated.
	Deprecated *Deprecation `json:"deprecated,omitempty"`

	// The handlers that run before the handlers of the routes. Policies run in a fixed order,
	// other handlers in the configured order.
	HandlersRaw []json.RawMessage `json:"handle,omitempty" caddy:"namespace=http.handlers inline_key=handler"`

	// The routes of the group.
	Routes []*Route `json:"routes,omitempty"`

	// The inner groups, which inherit the options of this group.
	Groups []*Group `json:"groups,omitempty"`
}

// Deprecation adds header fields that mark responses as deprecated.
type Deprecation struct {
	// The date of the deprecation, such as 2026-12-31 or 2026-12-31T12:00:00Z, in the
	// past or the future. Sent in the Deprecation field (RFC 9745). Default:
	// 1970-01-01.
	Since string `json:"since,omitempty"`

	// The date of the removal, in the same format. Sent in the Sunset field (RFC 8594).
	// Default: none.
	Sunset string `json:"sunset,omitempty"`

	// The URL of a page with details. Sent in a Link field with the relation
	// `deprecation`. Default: none.
	Link string `json:"link,omitempty"`
}

// Backend is a service: the containers that match its labels, static addresses, or
// registered instances.
type Backend struct {
	// The name of the backend. Required. Must be unique.
	Name string `json:"name"`

	dockerupstreams.Selector

	// The static addresses of the backend (`host:port`). Cannot be combined with
	// `match_labels` and the other container options, except `scheme`.
	Dial []string `json:"dial,omitempty"`

	// Whether instances can register themselves, in addition to or instead of
	// `match_labels` and `dial`. Requires `operations.registration`. Default: false.
	Register bool `json:"register,omitempty"`

	// The selection policy of Caddy's reverse proxy, which chooses the upstream.
	// Default: random.
	LBPolicyRaw json.RawMessage `json:"lb_policy,omitempty" caddy:"namespace=http.reverse_proxy.selection_policies inline_key=policy"`

	// The protocols that a client may switch to, by their names in the Upgrade field.
	// Other offers are removed from the request, which is then served without an
	// upgrade. Protocols that carry HTTP requests, such as `h2c`, are invalid because
	// they would bypass the policies. Default: `websocket`.
	Upgrades []string `json:"upgrades,omitempty"`

	// The maximum number of retries on other upstreams. A request is retried if the
	// connection cannot be established. A GET, HEAD or OPTIONS request without a body
	// is also retried if the connection is lost before the response. Default: 2. 0
	// disables retries.
	Retries *int `json:"retries,omitempty"`

	// The retry budget, which limits retries during an overload. Default: no limit.
	RetryBudget *RetryBudget `json:"retry_budget,omitempty"`

	// The time limits for the backend.
	Timeouts *Timeouts `json:"timeouts,omitempty"`

	// Other options of Caddy's `reverse_proxy` handler, in JSON form. `upstreams` and
	// `dynamic_upstreams` are not allowed. Default: none.
	ProxyRaw json.RawMessage `json:"proxy,omitempty"`

	// The handlers around the proxy, the first outermost. Policies run in a fixed
	// order.
	AroundRaw []json.RawMessage `json:"around,omitempty" caddy:"namespace=http.handlers inline_key=handler"`

	service    *upstream.Service
	around     []loadedHandler
	standalone caddyhttp.Handler // the service and its handlers, without a route
}

// Timeouts holds the time limits for a backend. 0 disables a limit.
type Timeouts struct {
	// The time limit for establishing a connection. Default: 3s. 0 disables the limit,
	// so that only the operating system's limit applies.
	Dial options.Timeout `json:"dial,omitempty"`

	// The time limit from the end of the request to the beginning of the response.
	// After it, the response is 504. Default: 60s. 0 disables the limit.
	FirstByte options.Timeout `json:"first_byte,omitempty"`

	// The time limit for the request, its retries and the response body, including
	// WebSockets and streams. After it, the response is 504, or 408 while the client
	// sends its body. If the response has begun, the connection is closed. Default: no
	// limit. On a route, 0 disables the backend's limit.
	Total options.Timeout `json:"total,omitempty"`
}

// RetryBudget limits the retries of a backend. Failures beyond the budget are not
// retried.
type RetryBudget struct {
	// The maximum ratio of retries to the requests of the last ten seconds, 0 to 1.
	// Default: 0.2.
	Ratio *float64 `json:"ratio,omitempty" caddyfile:"arg"`

	// The number of retries per second that are allowed regardless of the ratio, 0 to
	// 1000. Bursts of ten times as many are allowed. Default: 10.
	MinPerSecond *int `json:"min_per_second,omitempty" caddyfile:"arg"`
}
