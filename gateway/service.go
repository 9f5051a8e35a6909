package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/rgate/rgate/dockerupstreams"
	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

// Defaults of a backend's proxy, where they differ from Caddy's.
const (
	defaultRetries   = 2
	defaultFirstByte = time.Minute

	// Connections kept open per container. Caddy's 32 would be opened and closed
	// all the time under more requests at once than that.
	defaultIdleConns = 256
)

// service is a backend at work. The proxy is one of its own: a shared one would
// share the counter of round robin, too.
type service struct {
	proxy      *reverseproxy.Handler
	containers *dockerupstreams.Subscription // nil: static addresses
	registered func() []string               // the addresses that have registered; nil: registration is off
	transport  *transport                    // nil: not one of HTTP
	budget     *budget                       // nil: retries have none
	upgrades   []string                      // what requests may switch to
	around     []loaded
	alone      caddyhttp.Handler // what stands around it, without any route
	called     []string          // its name, as a header field has it

	environmentProxy bool // dialled through the proxy that the environment names
	direct           bool // dialled through none, whatever the environment names
}

// provision loads the backend's proxy and what stands around it.
func (b *Backend) provision(ctx caddy.Context, docker []dockerupstreams.Endpoint, o order, logger *zap.Logger) error {
	if b.MatchLabels != nil {
		sub, err := dockerupstreams.Subscribe(docker, b.Selector, logger)
		if err != nil {
			return fmt.Errorf("looking for the containers of backend %s: %w", b.Name, err)
		}
		b.containers = sub
	}
	b.environmentProxy = policy.ScopeOf(ctx).HasLegacy(legacyEnvironmentProxy)
	options, err := b.proxyOptions()
	if err != nil {
		return fmt.Errorf("configuring the proxy of backend %s: %w", b.Name, err)
	}
	module, err := ctx.LoadModuleByID("http.handlers.reverse_proxy", caddyconfig.JSON(options, nil))
	if err != nil {
		return fmt.Errorf("loading the proxy of backend %s: %w", b.Name, err)
	}
	b.proxy = module.(*reverseproxy.Handler)
	switch {
	case b.registered != nil:
		b.proxy.DynamicUpstreams = joined{b}
	case b.containers != nil:
		b.proxy.DynamicUpstreams = containers{b.containers}
	}
	b.budget = b.RetryBudget.start()
	b.proxy.LoadBalancing.SelectionPolicy = untried{b.proxy.LoadBalancing.SelectionPolicy, b.budget, b.proxy.LoadBalancing.TryInterval > 0}
	if b.proxy.LoadBalancing.RetryMatch == nil {
		b.proxy.LoadBalancing.RetryMatch = caddyhttp.MatcherSets{{repeatable{}}}
	}
	if err := b.wrapTransport(ctx, options); err != nil {
		return fmt.Errorf("loading the transports of backend %s: %w", b.Name, err)
	}
	if b.around, err = loadHandlers(ctx, b, "AroundRaw", b.AroundRaw); err != nil {
		return fmt.Errorf("loading the handlers around backend %s: %w", b.Name, err)
	}
	handlers := o.compose(b.around)
	last := withinLimit(handlers, 0)
	b.alone = chain(handlers[:last], b.within(nil, chain(handlers[last:], caddyhttp.HandlerFunc(b.forward))))
	b.called = []string{b.Name}
	if b.upgrades = b.Upgrades; b.upgrades == nil {
		b.upgrades = []string{webSocket}
	}
	return nil
}

// within bounds how long a handler of the backend may take, by the time limits of
// the route if they say so, else by the backend's own.
func (b *Backend) within(route *Timeouts, next caddyhttp.Handler) caddyhttp.Handler {
	total := cmp.Or(route.total(), b.Timeouts.total())
	if total <= 0 {
		return next
	}
	return caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), total)
		defer cancel()
		r = r.WithContext(ctx)
		if body := httpx.WatchBody(r); body != nil {
			defer body.StopAfter(ctx, w, r)()
		}
		return next.ServeHTTP(w, r)
	})
}

func (t *Timeouts) total() time.Duration {
	if t == nil {
		return 0
	}
	return time.Duration(t.Total)
}

// forward is the innermost handler of a backend: the proxy.
func (b *Backend) forward(w http.ResponseWriter, r *http.Request) error {
	ex := exchangeOf(r)
	ex.set, ex.dial, ex.tried, ex.verdict, ex.spent, ex.fault = nil, "", nil, failure.Result{}, false, nil
	b.budget.request()
	tunnel := httpx.IsTunnel(r)
	if b.dropUpgrades(r, ex); tunnel && !httpx.IsTunnel(r) {
		policy.WriteStatus(w, r, http.StatusNotImplemented) // RFC 9220, section 3
		return nil
	}
	if httpx.LacksBody(r.Method) {
		httpx.HasBody(r) // known before it is sent, it decides about retries
	}
	if tunnel {
		r = asConnect(r)
	}
	r.Header[trust.HeaderGatewayService] = b.called
	r.Header[hopsField] = ex.hops
	if ex.upload = httpx.WatchBody(r); ex.upload != nil {
		defer ex.restoreLimit()
	}
	ex.writer = faultWriter{caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, ex}
	err := b.proxy.ServeHTTP(&ex.writer, r, nil)
	switch {
	case err != nil:
		return upstreamError(r, err)
	case ex.fault != nil:
		return caddyhttp.Error(ex.verdict.Status, failureOf(ex.verdict, ex.fault))
	}
	trust.CleanLateTrailers(w.Header())
	return nil
}

// release gives back what provision acquired. Whoever still uses the backend, such
// as a scrape of its metrics, goes on with the last set of containers.
func (b *Backend) release() error {
	if b.containers == nil {
		return nil
	}
	return b.containers.Close()
}

// hasContainers reports whether the service consists of containers.
func (s *service) hasContainers() bool { return s.containers != nil }

// synced reports whether the containers of the service are known.
func (s *service) synced() bool { return s.containers == nil || s.containers.Set().Synced }

// available returns the number of upstreams that can take requests.
func (s *service) available() (n int) {
	if s.registered != nil {
		n = len(s.registered())
	}
	for _, u := range s.upstreams() {
		if u.reason == "" {
			n++
		}
	}
	return n
}

// upstreamReport is the state of a container or a static address.
type upstreamReport struct {
	address, container string
	reason             string // why it gets no requests; empty if it does
	inFlight           *int   // nil for containers
}

// upstreams reports on the containers or static addresses of the service. Registered
// instances are not included.
func (s *service) upstreams() (all []upstreamReport) {
	if s.containers != nil {
		set := s.containers.Set()
		for _, target := range set.Targets {
			all = append(all, upstreamReport{address: target.Dial, container: target.Container})
		}
		for _, rejected := range set.Rejected {
			all = append(all, upstreamReport{container: rejected.Container, reason: rejected.Reason})
		}
		return all
	}
	for _, upstream := range s.proxy.Upstreams {
		n := upstream.NumRequests()
		report := upstreamReport{address: upstream.Dial, inFlight: &n}
		if !upstream.Healthy() {
			report.reason = "its health checks fail"
		}
		all = append(all, report)
	}
	return all
}

// proxyOptions are options of reverse_proxy in their JSON form.
type proxyOptions map[string]json.RawMessage

// object returns an option that is itself an object; an absent one is empty.
func (o proxyOptions) object(key string) (proxyOptions, error) {
	inner := proxyOptions{}
	if raw, ok := o[key]; ok {
		if err := json.Unmarshal(raw, &inner); err != nil {
			return nil, fmt.Errorf("%s is not an object: %w", key, err)
		}
	}
	return inner, nil
}

// set gives an option a value.
func (o proxyOptions) set(key string, value any) { o[key] = caddyconfig.JSON(value, nil) }

// suggest gives an option a value if it has none.
func (o proxyOptions) suggest(key string, value any) {
	if _, ok := o[key]; !ok {
		o.set(key, value)
	}
}

// speak makes the options those of an HTTP transport that speaks a scheme. Plain
// HTTP is what it speaks anyway.
func (o proxyOptions) speak(scheme string) {
	switch scheme {
	case "https":
		o.suggest("tls", struct{}{})
	case "h2c":
		o.set("versions", []string{"h2c"})
	}
}

// proxyOptions composes the options of the backend's reverse proxy: the ones
// given in their JSON form, and those that the backend's own fields stand for.
func (b *Backend) proxyOptions() (proxyOptions, error) {
	options := proxyOptions{}
	if b.ProxyRaw != nil {
		if err := json.Unmarshal(b.ProxyRaw, &options); err != nil {
			return nil, err
		}
	}
	balancing, err := options.object("load_balancing")
	if err != nil {
		return nil, err
	}
	if b.LBPolicyRaw != nil {
		balancing.set("selection_policy", b.LBPolicyRaw)
	}
	if b.Retries != nil {
		balancing.set("retries", *b.Retries)
	} else if _, ok := balancing["try_duration"]; !ok {
		balancing.suggest("retries", defaultRetries)
	}
	options.set("load_balancing", balancing)

	transport, err := options.object("transport")
	if err != nil {
		return nil, err
	}
	transport.suggest("protocol", "http")
	if string(transport["protocol"]) == `"http"` {
		b.httpTransport(transport)
	}
	options.set("transport", transport)

	if len(b.Dial) > 0 {
		upstreams := make([]map[string]string, len(b.Dial))
		for i, dial := range b.Dial {
			upstreams[i] = map[string]string{"dial": dial}
		}
		options.set("upstreams", upstreams)
	}
	return options, nil
}

// httpTransport completes the options of Caddy's HTTP transport.
func (b *Backend) httpTransport(transport proxyOptions) {
	b.Timeouts.limits().apply(transport)
	transport.suggest("response_header_timeout", defaultFirstByte)
	transport.suggest("keep_alive", map[string]int{"max_idle_conns_per_host": defaultIdleConns})
	// Backends are dialled directly, whatever proxy the environment names.
	if _, ok := transport["forward_proxy_url"]; !ok && !b.environmentProxy {
		_, ok = transport["network_proxy"]
		b.direct = !ok
		transport.suggest("network_proxy", map[string]string{"from": "none"})
	}
	// An answer reaches the client as the container made it.
	transport.suggest("compression", false)
	transport.speak(b.Scheme)
}
