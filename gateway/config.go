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

// Gateway is an API gateway for containers: it routes a request by its path to
// a backend, which is a set of Docker containers found by their labels (or a
// list of static addresses), and keeps statistics of what it did.
//
// Placeholders that it sets:
//
// Placeholder | Description
// ------------|-------------
// `{http.rgate.gateway}` | The name of the gateway
// `{http.rgate.route}` | The name of the route that matched
// `{http.rgate.backend}` | The name of the backend that the request went to
// `{http.rgate.param.NAME}` | What a pattern's segment `:NAME` stands for; `{http.rgate.param.*}` for a `*` at its end. Empty if it has none
// `{http.rgate.container}` | The name of the container that was tried last; empty for static backends
type Gateway struct {
	// The name under which statistics outlive a reload of the configuration.
	// Gateways of one process that have the same name share them. Default: `rgate`.
	Name string `json:"name,omitempty"`

	// The Docker engines in which containers are looked for. Default: the one that
	// DOCKER_HOST names, else the platform's own.
	Docker []dockerupstreams.Endpoint `json:"docker,omitempty"`

	// The statistics page, `/stats` by default.
	Stats *stats.Config `json:"stats,omitempty"`

	// Endpoints for those who run the gateway, and a log of its last requests.
	// Default: none; the admin API has the endpoints under `/rgate/gateway` anyway.
	Operations *operations.Config `json:"operations,omitempty"`

	// The answer to requests that no route matches. Default: 404 with an empty body.
	DefaultResponse *DefaultResponse `json:"default_response,omitempty"`

	// Whether to believe what clients say in the header fields by which backends
	// learn who sent a request: X-User-ID and all that begin with X-Consumer-. They
	// are taken away otherwise. It is right if a gateway in front of this one sets
	// them, and no other client can reach this one. Default: false.
	TrustIdentity bool `json:"trust_identity,omitempty"`

	// The fields of proxies that are kept although their peer is none of the server's
	// trusted proxies, such as `X-Forwarded-Prefix`. Otherwise the gateway removes
	// Forwarded, X-Forwarded-Prefix, CF-Connecting-IP and the like, and sets X-Real-IP
	// and X-Forwarded-Port itself. Clients can then say what they like in the fields
	// kept. Default: none.
	KeepFields []string `json:"keep_fields,omitempty"`

	// How often a request may pass this gateway's process, 1 to 1000: it does so more
	// than once if the gateway is its own backend, directly or by way of others. Then
	// the response is 508. 0 disables the limit. Default: 5.
	MaxHops *int `json:"max_hops,omitempty"`

	// Behaviours of an earlier version to restore, by name. Use it to upgrade first and
	// to adapt the configuration later. Default: none.
	Legacy []string `json:"legacy,omitempty"`

	// Handlers that run for every route. Policies, whose names begin with `rgate_`,
	// run in a fixed order, and those of a route or a group win over those out here;
	// the others run in the order given, before those of groups and routes. Those that
	// may respond run behind authentication.
	HandlersRaw []json.RawMessage `json:"handle,omitempty" caddy:"namespace=http.handlers inline_key=handler"`

	// Which requests go to which backend. The route that says most about a path
	// wins, whatever the order: of several prefixes, the longest.
	Routes []*Route `json:"routes,omitempty"`

	// Routes that have something in common.
	Groups []*Group `json:"groups,omitempty"`

	// The services that routes send requests to.
	Backends []*Backend `json:"backends,omitempty"`

	state
}

// DefaultResponse is what a client gets if no route matches its request.
type DefaultResponse struct {
	// The body, sent byte for byte. It is announced as JSON if it is JSON, and as
	// plain text otherwise. Default: empty.
	Body string `json:"body,omitempty"`

	// The status, 200 to 599. Default: 404.
	StatusCode int `json:"status_code,omitempty"`
}

// Route sends requests to a backend.
type Route struct {
	// The route's name in statistics, logs and metrics. Default: the path prefix,
	// after its methods and hosts and before its conditions on the query and headers,
	// if it has any.
	Name string `json:"name,omitempty"`

	// The paths that this route takes: what they begin with, or a pattern. Required,
	// unless a group around the route has one; begins with `/`. It is compared with
	// the decoded path, with regard to case.
	//
	// In a pattern, a segment `:name` stands for any one segment, which becomes the
	// placeholder `{http.rgate.param.name}`; a segment `*` stands for any one, too,
	// or at the end for whatever follows, which becomes `{http.rgate.param.*}`. A
	// pattern takes whole paths: `/users/:id` takes neither `/users/7/` nor
	// `/users/7/orders`, `/users/:id/*` takes both.
	PathPrefix string `json:"path_prefix"`

	// What may follow the prefix: `prefix` (the default) takes anything, so that
	// `/api/pay` takes `/api/payment`; `segment` takes only the prefix itself and
	// what follows it after a slash. If it is given, path_prefix is no pattern.
	Match string `json:"match,omitempty"`

	// The request methods that this route takes; GET includes HEAD. Default: all.
	// If a path is taken by routes for other methods alone, the answer is 405 with
	// an Allow header.
	Methods []string `json:"methods,omitempty"`

	// The hosts that this route takes: exact names, or `*.example.com` for one
	// label in its place. A route with hosts is preferred to one without at the
	// same prefix. Default: all.
	Hosts []string `json:"hosts,omitempty"`

	// The header fields that a request must have for this route to take it, each
	// with one of the values; a `*` at the beginning or end of a value stands for
	// anything, and null for a field that must be absent. Default: all.
	Headers caddyhttp.MatchHeader `json:"headers,omitempty"`

	// The query parameters that a request must have for this route to take it, each
	// with one of the values; `*` stands for any. Default: all.
	Query caddyhttp.MatchQuery `json:"query,omitempty"`

	// Tells clients that what this route leads to will go away. Default: that of
	// the group.
	Deprecated *Deprecation `json:"deprecated,omitempty"`

	// Whether the backend sees the path without the prefix; of a pattern, without
	// what comes before the `*` at its end. Default: false.
	StripPrefix bool `json:"strip_prefix,omitempty"`

	// How long to wait for the backend, in place of what it says itself. Default:
	// the backend's time limits.
	Timeouts *Timeouts `json:"timeouts,omitempty"`

	// Handlers that run before the backend's, in this order; policies in their own.
	HandlersRaw []json.RawMessage `json:"handle,omitempty" caddy:"namespace=http.handlers inline_key=handler"`

	// The name of the backend. Required, unless there are several.
	Backend string `json:"backend,omitempty"`

	// Several backends, each of which gets a share of the requests.
	Backends []*Share `json:"backends,omitempty"`

	// What decides which one of several backends gets a request: requests with the
	// same value go to the same one. If a share grows, requests move into it alone,
	// and from it alone if it shrinks. A text with placeholders such as
	// `{http.request.cookie.session}` or a pattern's `{http.rgate.param.id}`; it is
	// read before any handler runs. Where it is empty, and by default, chance decides.
	StickyKey string `json:"sticky_key,omitempty"`

	matcher       *routing.Route
	everyResponse []orderedHandler // the policies that every response needs
	sticky        placeholder.Key  // of StickyKey
	name          string
	weighted      []weightedBackend
	limits        upstream.Limits
}

// Share is a backend that gets a share of a route's requests.
type Share struct {
	// The name of the backend. Required.
	Name string `json:"name"`

	// Its share, in relation to those of the others: 0 to 1,000,000. Required for
	// one of them at least.
	Weight int `json:"weight"`
}

// Group is routes that have something in common, such as one version of an API.
type Group struct {
	// What stands before the path_prefix of all its routes. Begins with `/`, and may
	// have the segments `:name` and `*` of a pattern, which all of its routes then
	// are. Default: nothing.
	PathPrefix string `json:"path_prefix,omitempty"`

	// The hosts of those routes that name none of their own.
	Hosts []string `json:"hosts,omitempty"`

	// The header fields that a request must have, beside those of the routes.
	Headers caddyhttp.MatchHeader `json:"headers,omitempty"`

	// The query parameters that a request must have, beside those of the routes.
	Query caddyhttp.MatchQuery `json:"query,omitempty"`

	// Tells clients that what these routes lead to will go away.
	Deprecated *Deprecation `json:"deprecated,omitempty"`

	// Handlers that run before every route's own, in this order; policies in theirs.
	HandlersRaw []json.RawMessage `json:"handle,omitempty" caddy:"namespace=http.handlers inline_key=handler"`

	// The routes.
	Routes []*Route `json:"routes,omitempty"`

	// Groups within the group. They inherit all of the above.
	Groups []*Group `json:"groups,omitempty"`
}

// Deprecation tells clients by header fields that what they use will go away.
type Deprecation struct {
	// The day on which it became deprecated, or will, as in 2026-12-31 or
	// 2026-12-31T12:00:00Z. It is sent as the Deprecation field (RFC 9745).
	// Default: 1970-01-01, for no day in particular.
	Since string `json:"since,omitempty"`

	// The day on which it goes away, in the same form. It is sent as the Sunset
	// field (RFC 8594). Default: none.
	Sunset string `json:"sunset,omitempty"`

	// The address of a page that tells more. It is sent as a Link field with the
	// relation `deprecation`. Default: none.
	Link string `json:"link,omitempty"`
}

// Backend is a service: the containers that carry its labels, or static addresses.
type Backend struct {
	// The backend's name. Required, unique.
	Name string `json:"name"`

	dockerupstreams.Selector

	// Static addresses (`host:port`), for a backend without Docker. Excludes
	// `match_labels` and the other options about containers, except for `scheme`.
	Dial []string `json:"dial,omitempty"`

	// Whether instances may register themselves, with `match_labels` and `dial` or
	// in place of them. Needs the `registration` of the operations. Default: false.
	Register bool `json:"register,omitempty"`

	// How one of several containers is chosen: a selection policy of Caddy's
	// reverse proxy. Default: random.
	LBPolicyRaw json.RawMessage `json:"lb_policy,omitempty" caddy:"namespace=http.reverse_proxy.selection_policies inline_key=policy"`

	// The protocols that a client may switch to, as the Upgrade field names them. Others are
	// removed from its offer, and the request is served without them. Those in which
	// requests of HTTP would pass by the policies, such as `h2c`, are refused.
	// Default: `websocket` alone.
	Upgrades []string `json:"upgrades,omitempty"`

	// How often a request is tried again elsewhere: after a failed dial whatever
	// its method, for nothing was sent; after a connection lost before an answer
	// began, if it is a GET, HEAD or OPTIONS without a body. 0 turns retries off.
	// Default: 2.
	Retries *int `json:"retries,omitempty"`

	// How many of the requests may be such retries, so that they do not multiply an
	// overload. Default: no bound.
	RetryBudget *RetryBudget `json:"retry_budget,omitempty"`

	// How long to wait for the backend.
	Timeouts *Timeouts `json:"timeouts,omitempty"`

	// Any other option of Caddy's `reverse_proxy` handler, in its JSON form,
	// except for `upstreams` and `dynamic_upstreams`.
	ProxyRaw json.RawMessage `json:"proxy,omitempty"`

	// Handlers that run around the proxy, the first outermost; policies in their own
	// order.
	AroundRaw []json.RawMessage `json:"around,omitempty" caddy:"namespace=http.handlers inline_key=handler"`

	service    *upstream.Service
	around     []loadedHandler
	standalone caddyhttp.Handler // the service and what is around it, without any route
}

// Timeouts bound how long a request waits for its backend. 0 turns a limit off.
type Timeouts struct {
	// The time to establish a connection. Default: 3s. 0 disables the limit: the
	// system's own remains.
	Dial options.Timeout `json:"dial,omitempty"`

	// The time until the backend begins its response, counted from the end of the
	// request; then the client gets 504. Default: 60s. 0 disables the limit.
	FirstByte options.Timeout `json:"first_byte,omitempty"`

	// The time for everything, retries and the body included: 504 if the response
	// had not begun, else the connection is cut. It bounds WebSockets and streams as
	// well. Default: no limit. On a route, 0 disables the backend's limit.
	Total options.Timeout `json:"total,omitempty"`
}

// RetryBudget bounds how many requests are sent to a backend again. What is beyond
// it is answered as it failed.
type RetryBudget struct {
	// The share of the requests of the last ten seconds that may be retries, 0 to
	// 1. Default: 0.2.
	Ratio *float64 `json:"ratio,omitempty" caddyfile:"arg"`

	// How many retries there may be each second whatever the share, 0 to 1000; ten
	// times as many at once. Default: 10.
	MinPerSecond *int `json:"min_per_second,omitempty" caddyfile:"arg"`
}
