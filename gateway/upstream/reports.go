package upstream

import (
	"cmp"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/policy"
)

// Report describes an upstream, or a container that is rejected.
type Report struct {
	Address, Container string
	Reason             string // the reason if it receives no requests, else empty
	InFlight           *int   // nil for containers and registered instances
	Registered         bool   // a registered instance
}

// Upstreams returns the state of the service's containers, static addresses and
// registered instances, as requests find it now.
func (s *Service) Upstreams() (all []Report) {
	state := s.look()
	containers := 0
	if set := state.attempt.set; set != nil {
		containers = len(set.Targets)
	}
	for i, upstream := range state.probe.pool {
		report := Report{Address: upstream.Dial, Reason: cmp.Or(s.rests.Reason(upstream.Dial, state.instance), s.reason(upstream))}
		switch n := upstream.NumRequests(); {
		case i < containers:
			report.Container = state.attempt.set.Targets[i].Container
		case i < containers+max(len(s.options.Dial), len(s.proxy.Upstreams)):
			report.InFlight = &n
		default:
			report.Registered = true
		}
		all = append(all, report)
	}
	if state.attempt.set != nil {
		for _, rejected := range state.attempt.set.Rejected {
			if !rejected.Intended {
				all = append(all, Report{Container: rejected.Container, Reason: rejected.Reason})
			}
		}
	}
	return all
}

// Available returns the number of upstreams that can receive requests.
func (s *Service) Available() (n int) {
	for _, upstream := range s.Upstreams() {
		if upstream.Reason == "" {
			n++
		}
	}
	return n
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

// reason returns the reason why Caddy's proxy does not select an upstream, or "".
func (s *Service) reason(upstream *reverseproxy.Upstream) string {
	checks := s.proxy.HealthChecks
	switch {
	case upstream.Available():
		return ""
	case upstream.Healthy():
		return fmt.Sprintf("the maximum of %d requests in flight is reached", upstream.MaxRequests)
	case checks != nil && checks.Passive != nil && upstream.Fails() >= checks.Passive.MaxFails:
		return fmt.Sprintf("passive health checks fail: %d recent failures", upstream.Fails())
	case s.proxy.CB != nil && !s.proxy.CB.OK():
		return "the circuit breaker of the proxy is open"
	default:
		return "health checks fail"
	}
}

// probe receives the upstreams of a service, with the state that Caddy's proxy keeps.
type probe struct{ pool reverseproxy.UpstreamPool }

// unusable is an upstream that Caddy's proxy rejects before it dials: the address has two
// ports. The proxy does not retry it.
var unusable = &reverseproxy.Upstream{Dial: "probe:1-2"}

// look returns the state of a request that reads the upstreams. Caddy exports no other
// access to the state of dynamic upstreams, which includes passive health checks and
// requests in flight.
func (s *Service) look() *Request {
	state := &Request{probe: new(probe)}
	r, err := http.NewRequest(http.MethodGet, "http://localhost/", nil)
	if err != nil {
		return state // never happens
	}
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, nil)
	caddyhttp.SetVar(r.Context(), policy.RequestStateVar, state)
	_ = s.proxy.ServeHTTP(nil, r, nil) // always fails, because unusable is selected
	return state
}
