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

	"github.com/rgate/rgate/internal/lease"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(CircuitBreaker))
	httpcaddyfile.RegisterHandlerDirective("rgate_circuit_breaker", policy.Directive[CircuitBreaker])
}

// Defaults of a circuit breaker.
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

// CircuitBreaker keeps requests away from a backend that fails, so that clients
// learn it at once and the backend can recover. After some failures it is open and
// answers with 503; after a while it is half-open and lets a probe through, which
// closes it again or, if it fails, opens it for another while.
//
// A failure is a request to which the backend did not respond, or responded with one
// of the statuses. Responses with 4xx are successes. What a client can cause counts
// for nothing: clients that leave or do not send what they have begun, requests that
// cannot be sent, uploads that the backend closes the connection on, and 501, 505,
// 506, 507, 508, 510 and 511. So does a backend without any upstream. What counts is
// the header of a response: a stream that breaks off later is no failure.
//
// There is one state for each backend. It outlives a reload of the configuration,
// unless one of the options that make it up has changed.
type CircuitBreaker struct {
	policy.Base

	// How many failures in a row open it, 1 to 1000. Excludes `ratio`. Default: 5.
	Failures int `json:"failures,omitempty" caddyfile:"arg" default:"5"`

	// How long it stays open, 10ms to 24h. Default: 60s.
	Recovery caddy.Duration `json:"recovery,omitempty" caddyfile:"arg" default:"60s"`

	// How long a failure counts as one in a row: the last `failures` ones open it
	// if the first of them is not older than this. At least 10ms. Default: 5m.
	Expire caddy.Duration `json:"expire,omitempty" default:"5m"`

	// Opens it if this share of the requests within `window` has failed, above 0
	// and up to 1, whatever their order. Default: failures in a row count.
	Ratio float64 `json:"ratio,omitempty"`

	// What `ratio` looks at: the requests of this time, 10ms to 24h, give or take a
	// tenth. Default: 10s.
	Window caddy.Duration `json:"window,omitempty" default:"10s"`

	// How many requests there must be within `window` for `ratio` to mean anything,
	// 1 to 1,000,000. Default: 20.
	Minimum int `json:"minimum,omitempty" default:"20"`

	// How many requests are let through when it is half-open, 1 to 100. If all of
	// them succeed, it closes; if one fails, it opens again. A probe that has no
	// answer after `recovery` makes room for another. Default: 1.
	Probes int `json:"probes,omitempty" default:"1"`

	// The statuses that are failures: 500 to 599, or `5xx` for all of them that are
	// about the backend: not 501, 505, 506, 507, 508, 510 and 511, which are about the
	// request and count only if they are listed. Default: `5xx`.
	Statuses []string `json:"statuses,omitempty" default:"5xx"`

	// Whether every container, or address, has a state of its own. Those that are
	// open are not chosen; if all of them are, the answer is 503. It takes a
	// gateway: elsewhere there is one state all the same. Default: false.
	PerContainer bool `json:"per_container,omitempty"`

	// The name under which the state outlives a reload outside of a gateway;
	// handlers of the same name and the same options share it. In a gateway, it
	// tells apart breakers that would share a backend's state. Default: none.
	Name string `json:"name,omitempty"`

	options  breakerOptions
	failing  policy.FailureStatuses
	circuits lease.Set[policy.Place, *circuit]
	home     *circuit // of the backend that the policy stands on; nil: on none
	herald   herald
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
		return policy.Optionf("failures", "failures %d is out of range: use 1 to %d", p.Failures, maxFailures)
	case p.Ratio != 0 && p.Failures != 0:
		return policy.Optionf("ratio", "failures and ratio exclude each other: use failures for some in a row, or ratio for a share of all")
	case p.Ratio < 0 || p.Ratio > 1 || math.IsNaN(p.Ratio):
		return policy.Optionf("ratio", "ratio %v is no share: use a number above 0 and up to 1, such as 0.5", p.Ratio)
	case p.Ratio != 0 && p.Expire != 0:
		return policy.Optionf("expire", "expire is about failures in a row: with ratio, use window")
	case p.Ratio == 0 && p.Window != 0:
		return policy.Optionf("window", "window belongs to ratio: set it, such as ratio: 0.5, or use expire")
	case p.Ratio == 0 && p.Minimum != 0:
		return policy.Optionf("minimum", "minimum belongs to ratio: set it, such as ratio: 0.5, or leave minimum out")
	case p.Minimum < 0 || p.Minimum > 1e6:
		return policy.Optionf("minimum", "minimum %d is out of range: use 1 to 1000000", p.Minimum)
	case p.Probes < 0 || p.Probes > maxProbes:
		return policy.Optionf("probes", "probes %d is out of range: use 1 to %d", p.Probes, maxProbes)
	}
	for _, d := range []struct {
		option string
		value  caddy.Duration
	}{{"recovery", p.Recovery}, {"expire", p.Expire}, {"window", p.Window}} {
		if value := time.Duration(d.value); value != 0 && (value < 10*time.Millisecond || value > 24*time.Hour) {
			return policy.Optionf(d.option, "%s %v is out of range: use 10ms to 24h", d.option, value)
		}
	}
	if _, err := policy.ParseFailureStatuses(p.Statuses, aboutBackend); err != nil {
		return err
	}
	return nil
}

// aboutBackend reports whether a status from 500 on is about the backend rather than the
// request.
func aboutBackend(status int) bool {
	return policy.Judge(status, nil, policy.Upload{}).Blame == policy.BlameBackend
}

// Provision sets the breaker up. Unless it stands on a backend, its states are looked
// for when requests come.
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
	p.failing, _ = policy.ParseFailureStatuses(p.Statuses, aboutBackend) // Validate tells
	p.herald.start(ctx)
	p.adopt()
	if home, ok := policy.Standing(ctx).Home(); ok {
		p.home = p.circuitAt(home)
	}
	return policy.RegisterMetrics(ctx, circuitCollector{})
}

// Validate implements caddy.Validator.
func (p *CircuitBreaker) Validate() error { return p.Check() }

// Cleanup lets go of the states.
func (p *CircuitBreaker) Cleanup() error {
	p.circuits.Release()
	return nil
}

// ServeHTTP lets a request through to the backend, or answers it with 503.
func (p *CircuitBreaker) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	c := p.home
	if c == nil {
		c = p.circuitAt(policy.PlaceOf(r))
	}
	if c.perContainer {
		if guarded, ok := policy.ExchangeOf(r).(policy.GuardedExchange); ok {
			return p.serveGuarded(c, guarded, w, r, next)
		}
	}
	pass := c.whole.begin()
	p.tell(c, "", pass.change)
	if !pass.admitted {
		return p.refuse(w, r, pass.wait)
	}
	return p.serve(c, pass.ticket, w, r, next)
}

var errCircuitOpen = errors.New("the circuit breaker is open")

// refuse answers a request that is not let through.
func (p *CircuitBreaker) refuse(w http.ResponseWriter, r *http.Request, wait time.Duration) error {
	seconds := max(1, int((wait+time.Second-1)/time.Second))
	w.Header().Set("Retry-After", strconv.Itoa(seconds))
	return p.Fail(w, r, http.StatusServiceUnavailable, errCircuitOpen)
}

// judge says what the end of a request says about the backend: its response with a
// status, or the error in place of one.
func (p *CircuitBreaker) judge(r *http.Request, status int, err error) verdict {
	if err == nil && p.failing.Has(status) {
		return failed
	}
	v := policy.JudgeRequest(r, status, err)
	switch {
	case err == nil && status < 500 && status != policy.StatusClientClosedRequest:
		return succeeded // also with 4xx: the backend is well
	case err == nil && v.Blame == policy.BlameBackend:
		return succeeded // with a status that is not listed
	case v.Blame == policy.BlameBackend:
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
