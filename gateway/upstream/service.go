// Package upstream forwards requests to the containers, static addresses and registered
// instances of a backend. It adds retry budgets, time limits per route and checks of
// upgrades to Caddy's reverse proxy.
package upstream

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/dockerupstreams"
	"github.com/rgate/rgate/internal/dialing"
	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

// Options configures a service.
type Options struct {
	// The name of the backend, for errors and the field X-Gateway-Service of requests.
	Name string

	// The upstreams: a subscription to containers, which the service closes, or static
	// addresses. Registered, unless nil, returns the addresses of registered instances.
	Containers *dockerupstreams.Subscription
	Dial       []string
	Registered func() []string

	// The scheme of all upstreams. Empty: the scheme of each container, http for addresses.
	Scheme string

	// The options of Caddy's reverse_proxy and its selection policy, in JSON form.
	Proxy, LBPolicy json.RawMessage

	Retries     *int         // nil: default
	RetryBudget *RetryBudget // nil: no limit
	Limits      Limits       // defaults; a request may have its own
	Upgrades    []string     // protocols that requests may switch to; nil: WebSocket

	// The time for which upgraded connections stay open after the service is closed.
	// Unset: default.
	StreamCloseDelay options.Timeout

	// Whether upstreams are dialed through a proxy from the environment.
	UseEnvironmentProxy bool

	// Whether containers with HTTPS get their own address as Host instead of the
	// client's, and whether addresses are selected immediately after a failed dial.
	UseContainerHost, IgnoreFailedDials bool

	// Whether containers may have addresses that lead back to the gateway.
	AllowLocalAddresses bool

	// OnDroppedUpgrade is called for each upgrade offer that is removed from a request.
	OnDroppedUpgrade func(r *http.Request, protocol string)
}

// Service forwards requests to the upstreams of one backend. Each service has its own
// proxy, because a shared proxy would share its round-robin counter.
type Service struct {
	options   Options
	nameField []string // the name, as the values of a header field
	proxy     *reverseproxy.Handler
	transport *transport // nil: the transport is not HTTP
	budget    *budget    // nil: no limit
	direct    bool       // ignores a proxy in the environment
	keepHost  bool       // forwards the client's Host although the transport uses TLS
	rests     dialing.Rests
	streams   streams
}

// New loads the proxy of a service. On error, it closes options.Containers.
func New(ctx caddy.Context, options Options) (*Service, error) {
	if options.Upgrades == nil {
		options.Upgrades = []string{webSocket}
	}
	s := &Service{options: options, nameField: []string{options.Name}, budget: newBudget(options.RetryBudget)}
	if err := s.load(ctx); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Service) load(ctx caddy.Context) error {
	options, err := s.proxyOptions()
	if err != nil {
		return fmt.Errorf("configuring the proxy of backend %s: %w", s.options.Name, err)
	}
	module, err := ctx.LoadModuleByID("http.handlers.reverse_proxy", caddyconfig.JSON(options, nil))
	if err != nil {
		return fmt.Errorf("loading the proxy of backend %s: %w", s.options.Name, err)
	}
	s.proxy = module.(*reverseproxy.Handler)
	s.streams.of(s.proxy)
	switch {
	case s.options.Registered != nil:
		s.proxy.DynamicUpstreams = multiSource{s}
	case s.options.Containers != nil:
		s.proxy.DynamicUpstreams = containerSource{s.options.Containers}
	}
	balancing := s.proxy.LoadBalancing
	if tracker, ok := balancing.SelectionPolicy.(attemptTracker); ok {
		tracker.IgnoreAttempts()
	}
	if weighted, ok := balancing.SelectionPolicy.(*reverseproxy.WeightedRoundRobinSelection); ok && s.proxy.DynamicUpstreams == nil {
		balancing.SelectionPolicy = weightedSelector{weighted, s.proxy.Upstreams}
	}
	balancing.SelectionPolicy = retrySelector{balancing.SelectionPolicy, &s.rests, s.budget, balancing.TryInterval > 0}
	if balancing.RetryMatch == nil {
		balancing.RetryMatch = caddyhttp.MatcherSets{{retryable{}}}
	}
	if err := s.wrapTransport(ctx, options); err != nil {
		return fmt.Errorf("loading the transports of backend %s: %w", s.options.Name, err)
	}
	return nil
}

// ServeHTTP forwards a request to an upstream.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	state := requestOf(r)
	state.attempt, state.tried, state.spent, state.host = attempt{}, nil, false, r.Host
	s.budget.request()
	tunnel := httpx.IsTunnel(r)
	if s.dropUpgrades(r); tunnel && !httpx.IsTunnel(r) {
		policy.WriteStatus(w, r, http.StatusNotImplemented) // RFC 9220, section 3
		return nil
	}
	if httpx.LacksBody(r.Method) {
		httpx.HasBody(r) // reads the body's first byte, if needed, before the request is sent; retries depend on it
	}
	if tunnel {
		r = webSocketAsConnect(r)
	}
	r.Header[trust.HeaderGatewayService] = s.nameField
	r.Header[hopsField] = state.Hops
	if state.upload = httpx.WatchBody(r); state.upload != nil {
		defer state.restoreReadLimit()
	}
	state.writer = faultWriter{caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, state}
	state.upgraded = false
	defer s.streams.leave(state)
	err := s.proxy.ServeHTTP(&state.writer, r, nil)
	switch {
	case err != nil:
		return statusError(r, err)
	case state.attempt.fault != nil:
		return caddyhttp.Error(state.attempt.result.Status, failureOf(state.attempt.result, state.attempt.fault))
	}
	trust.CleanLateTrailers(w.Header())
	return nil
}

// Close closes the subscription. A service that is still in use, for example by an
// upgraded connection or a metrics scrape, keeps its last set of containers. If the
// process is shutting down, Close also closes the upgraded connections.
func (s *Service) Close() error {
	s.streams.release()
	if s.options.Containers == nil {
		return nil
	}
	return s.options.Containers.Close()
}

// HasContainers reports whether the service's upstreams are containers.
func (s *Service) HasContainers() bool { return s.options.Containers != nil }

// Synced reports whether the containers that can be known are known. It is true without
// containers.
func (s *Service) Synced() bool {
	return s.options.Containers == nil || s.options.Containers.Ready()
}

// ForwardsClientHost reports whether upstreams get the client's Host although Caddy's
// transport would replace it.
func (s *Service) ForwardsClientHost() bool { return s.keepHost }

// DialsDirectly reports whether the service ignores a proxy in the environment.
func (s *Service) DialsDirectly() bool { return s.direct }
