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
	"github.com/rgate/rgate/internal/httpx"
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

	// Whether upstreams are dialed through a proxy from the environment.
	UseEnvironmentProxy bool

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
	switch {
	case s.options.Registered != nil:
		s.proxy.DynamicUpstreams = multiSource{s}
	case s.options.Containers != nil:
		s.proxy.DynamicUpstreams = containerSource{s.options.Containers}
	}
	balancing := s.proxy.LoadBalancing
	balancing.SelectionPolicy = retrySelector{balancing.SelectionPolicy, s.budget, balancing.TryInterval > 0}
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
	state.attempt, state.tried, state.spent = attempt{}, nil, false
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

// Close closes the subscription. A service that is still in use, for example by a
// metrics scrape, keeps its last set of containers.
func (s *Service) Close() error {
	if s.options.Containers == nil {
		return nil
	}
	return s.options.Containers.Close()
}

// HasContainers reports whether the service's upstreams are containers.
func (s *Service) HasContainers() bool { return s.options.Containers != nil }

// Synced reports whether the containers have been listed. It is true without
// containers.
func (s *Service) Synced() bool {
	return s.options.Containers == nil || s.options.Containers.Set().Synced
}

// Available returns the number of upstreams that can receive requests.
func (s *Service) Available() (n int) {
	if s.options.Registered != nil {
		n = len(s.options.Registered())
	}
	if s.options.Containers != nil {
		return n + len(s.options.Containers.Set().Targets)
	}
	for _, u := range s.proxy.Upstreams {
		if u.Healthy() {
			n++
		}
	}
	return n
}

// Report describes a container or a static address.
type Report struct {
	Address, Container string
	Reason             string // the reason if it receives no requests, else empty
	InFlight           *int   // nil for containers
}

// Upstreams returns the state of the service's containers or static addresses.
// Registered instances are excluded.
func (s *Service) Upstreams() (all []Report) {
	if s.options.Containers != nil {
		set := s.options.Containers.Set()
		for _, target := range set.Targets {
			all = append(all, Report{Address: target.Dial, Container: target.Container})
		}
		for _, rejected := range set.Rejected {
			if rejected.Intended {
				continue
			}
			all = append(all, Report{Container: rejected.Container, Reason: rejected.Reason})
		}
		return all
	}
	for _, upstream := range s.proxy.Upstreams {
		n := upstream.NumRequests()
		report := Report{Address: upstream.Dial, InFlight: &n}
		if !upstream.Healthy() {
			report.Reason = "health checks fail"
		}
		all = append(all, report)
	}
	return all
}

// Excluded returns the containers that are excluded on purpose or almost selected. It
// queries the engines.
func (s *Service) Excluded() (all []Report) {
	if s.options.Containers == nil {
		return nil
	}
	for _, rejected := range s.options.Containers.Set().Rejected {
		if rejected.Intended {
			all = append(all, Report{Container: rejected.Container, Reason: rejected.Reason})
		}
	}
	for _, miss := range s.options.Containers.NearMisses() {
		all = append(all, Report{Container: miss.Container, Reason: miss.Reason})
	}
	return all
}

// DialsDirectly reports whether the service ignores a proxy in the environment.
func (s *Service) DialsDirectly() bool { return s.direct }
