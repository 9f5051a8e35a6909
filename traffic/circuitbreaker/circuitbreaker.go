// Package circuitbreaker implements the handler rgate_circuit_breaker, which rejects requests
// to failing backends.
package circuitbreaker

import (
	"cmp"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/internal/lease"
	"github.com/rgate/rgate/internal/metrics"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(CircuitBreaker))
	httpcaddyfile.RegisterHandlerDirective("rgate_circuit_breaker", policy.Directive[CircuitBreaker])
}

// Default and limit values of the options.
const (
	defaultFailures = 5
	defaultExpire   = 5 * time.Minute
	defaultWindow   = 10 * time.Second
	defaultMinimum  = 20
	defaultRecovery = time.Minute
	defaultProbes   = 1
	defaultStatuses = "5xx"

	maxFailures = 1000
	maxProbes   = 100
)

// CircuitBreaker rejects requests to a failing backend, so that clients fail fast and the
// backend can recover. After a number of failures, it opens and responds with 503. After
// the recovery time, it is half-open and admits a number of probes. If all of them
// succeed, it closes. If one fails, it opens again.
//
// A failure is a request without a response, or with one of the `statuses`. Responses
// with 4xx are successes. Failures caused by the client are not counted: clients that
// disconnect or stop sending, requests that cannot be sent, and uploads during which the
// backend closes the connection. Unless listed, 501, 505, 506, 507, 508, 510 and 511 are
// not failures. Requests for a backend without upstreams are not counted. A response is
// counted when its header arrives. A stream that is interrupted later is not a failure.
//
// Each backend has one state. It survives a configuration reload unless options other than
// `statuses` change.
type CircuitBreaker struct {
	policy.Base

	// The number of consecutive failures that open the breaker, from 1 to 1000. Cannot be
	// combined with `ratio`. Default: 5.
	Failures int `json:"failures,omitempty" caddyfile:"arg" default:"5"`

	// The time for which the breaker stays open, from 10ms to 24h. Default: 60s.
	Recovery caddy.Duration `json:"recovery,omitempty" caddyfile:"arg" default:"60s"`

	// The maximum age of the first of the consecutive failures that open the breaker,
	// from 10ms to 24h. Default: 5m.
	Expire caddy.Duration `json:"expire,omitempty" default:"5m"`

	// The ratio of failed requests within `window` that opens the breaker, above 0 and at
	// most 1. Default: 0. The breaker opens after consecutive `failures`.
	Ratio float64 `json:"ratio,omitempty"`

	// The time window of `ratio`, from 10ms to 24h. It moves in steps of a tenth of its
	// length. Default: 10s.
	Window caddy.Duration `json:"window,omitempty" default:"10s"`

	// The minimum number of requests within `window` before `ratio` applies, from 1 to
	// 1,000,000. Default: 20.
	Minimum int `json:"minimum,omitempty" default:"20"`

	// The number of probes that a half-open breaker admits, from 1 to 100. If all probes
	// succeed, the breaker closes. If a probe fails, it opens again. A probe without a
	// response after `recovery` is replaced by another. Default: 1.
	Probes int `json:"probes,omitempty" default:"1"`

	// The response statuses that count as failures: 500 to 599, or `5xx` for statuses
	// that indicate a failure of the backend. `5xx` excludes 501, 505, 506, 507, 508, 510
	// and 511, which are related to the request and must be listed separately. Default:
	// `5xx`.
	Statuses []string `json:"statuses,omitempty" default:"5xx"`

	// Whether each container or address has a separate state. Containers whose breaker is
	// open are not selected. If all breakers are open, the response is 503. Has no effect
	// outside of a gateway. Default: false.
	PerContainer bool `json:"per_container,omitempty"`

	// The name of the state. Outside of a gateway, handlers with the same name and options
	// share it. In a gateway, breakers of a backend with different names have separate
	// states. Default: none. The position in the configuration identifies the state.
	Name string `json:"name,omitempty"`

	options  breakerOptions
	failing  failure.Statuses
	circuits lease.Set[policy.RouteInfo, *circuit]
	own      *circuit        // state of the backend that contains the policy; nil if none
	position policy.Position // set outside of a gateway if Name is empty
	events   eventEmitter
}

// CaddyModule returns the Caddy module information.
func (*CircuitBreaker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_circuit_breaker",
		New: func() caddy.Module { return new(CircuitBreaker) },
	}
}

// Check implements policy.Module.
func (p *CircuitBreaker) Check() error {
	switch {
	case p.Failures < 0 || p.Failures > maxFailures:
		return options.Errorf("failures", "invalid failures %d: must be 1 to %d", p.Failures, maxFailures)
	case p.Ratio != 0 && p.Failures != 0:
		return options.Errorf("ratio", "failures and ratio cannot be combined: use failures for consecutive failures, or ratio for a share of all requests")
	case p.Ratio < 0 || p.Ratio > 1 || math.IsNaN(p.Ratio):
		return options.Errorf("ratio", "invalid ratio %v: must be above 0 and at most 1", p.Ratio)
	case p.Ratio != 0 && p.Expire != 0:
		return options.Errorf("expire", "expire and ratio cannot be combined: use window with ratio")
	case p.Ratio == 0 && p.Window != 0:
		return options.Errorf("window", "window requires ratio: set ratio, such as 0.5, or use expire")
	case p.Ratio == 0 && p.Minimum != 0:
		return options.Errorf("minimum", "minimum requires ratio: set ratio, such as 0.5, or remove minimum")
	case p.Minimum < 0 || p.Minimum > 1e6:
		return options.Errorf("minimum", "invalid minimum %d: must be 1 to 1000000", p.Minimum)
	case p.Probes < 0 || p.Probes > maxProbes:
		return options.Errorf("probes", "invalid probes %d: must be 1 to %d", p.Probes, maxProbes)
	}
	for _, d := range []struct {
		option string
		value  caddy.Duration
	}{{"recovery", p.Recovery}, {"expire", p.Expire}, {"window", p.Window}} {
		if value := time.Duration(d.value); value != 0 && (value < 10*time.Millisecond || value > 24*time.Hour) {
			return options.Errorf(d.option, "invalid %s %v: must be 10ms to 24h", d.option, value)
		}
	}
	if _, err := failure.ParseStatuses(p.Statuses, aboutBackend); err != nil {
		return err
	}
	return nil
}

// aboutBackend reports whether a 5xx status indicates a failure of the backend.
func aboutBackend(status int) bool {
	return failure.Classify(status, nil, httpx.Upload{}).Cause == failure.Backend
}

// Provision sets up the policy. Its state is acquired here, except if the policy belongs
// to several backends.
func (p *CircuitBreaker) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "circuit_breaker"); err != nil {
		return err
	}
	p.Recovery = cmp.Or(p.Recovery, caddy.Duration(defaultRecovery))
	p.Probes = cmp.Or(p.Probes, defaultProbes)
	p.options = breakerOptions{recovery: time.Duration(p.Recovery), probes: p.Probes}
	if p.Ratio != 0 {
		p.Window = cmp.Or(p.Window, caddy.Duration(defaultWindow))
		p.Minimum = cmp.Or(p.Minimum, defaultMinimum)
		p.options.ratio, p.options.span, p.options.minimum = p.Ratio, time.Duration(p.Window), p.Minimum
	} else {
		p.Failures = cmp.Or(p.Failures, defaultFailures)
		p.Expire = cmp.Or(p.Expire, caddy.Duration(defaultExpire))
		p.options.failures, p.options.expire = p.Failures, time.Duration(p.Expire)
	}
	if len(p.Statuses) == 0 {
		p.Statuses = []string{defaultStatuses}
	}
	p.failing, _ = failure.ParseStatuses(p.Statuses, aboutBackend) // validated by Check
	p.events.start(ctx)
	p.reuse()
	scope := policy.ScopeOf(ctx)
	if backend, ok := scope.BackendRef(); ok {
		p.own = p.circuitAt(backend)
	} else if scope.Level == "" {
		if p.Name == "" {
			p.position = policy.PositionOf(ctx, "circuit_breaker")
		}
		p.circuitAt(policy.RouteInfo{})
	}
	return metrics.Register(ctx, circuitCollector{})
}

// Validate implements caddy.Validator.
func (p *CircuitBreaker) Validate() error { return p.Check() }

// Cleanup releases the states.
func (p *CircuitBreaker) Cleanup() error {
	p.circuits.Release()
	p.position.Release()
	return nil
}

// ServeHTTP forwards a request to the backend, or responds with 503.
func (p *CircuitBreaker) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	c := p.own
	if c == nil {
		c = p.circuitAt(policy.RouteInfoOf(r))
	}
	if c.perContainer {
		if guarded, ok := policy.RequestStateOf(r).(policy.GuardSetter); ok {
			return p.serveGuarded(c, guarded, w, r, next)
		}
	}
	admission := c.whole.begin()
	p.report(c, "", admission.change)
	if !admission.admitted {
		return p.reject(w, r, admission.wait)
	}
	return p.serve(c, admission.ticket, w, r, next)
}

var errCircuitOpen = errors.New("the circuit breaker is open")

// reject responds to a request that is not admitted. Retry-After is the time until the
// next probe, at least one second.
func (p *CircuitBreaker) reject(w http.ResponseWriter, r *http.Request, wait time.Duration) error {
	seconds := max(1, int((wait+time.Second-1)/time.Second))
	w.Header().Set("Retry-After", strconv.Itoa(seconds))
	return p.RefuseWithFallback(w, r, http.StatusServiceUnavailable, errCircuitOpen)
}

// judge returns the outcome of a request, based on the status of the response or on the
// error.
func (p *CircuitBreaker) judge(r *http.Request, status int, err error) outcome {
	if err == nil && p.failing.Has(status) {
		return failed
	}
	v := failure.ClassifyRequest(r, status, err)
	switch {
	case err == nil && status < 500 && status != failure.StatusClientClosedRequest:
		return succeeded // including 4xx
	case err == nil && v.Cause == failure.Backend:
		return succeeded // a 5xx status that is not listed
	case v.Cause == failure.Backend:
		return failed
	}
	return unknown
}

// Interface guards
var (
	_ caddy.Provisioner  = (*CircuitBreaker)(nil)
	_ caddy.Validator    = (*CircuitBreaker)(nil)
	_ caddy.CleanerUpper = (*CircuitBreaker)(nil)
	_ policy.Module      = (*CircuitBreaker)(nil)
)
