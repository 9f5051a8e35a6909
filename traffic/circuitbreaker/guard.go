package circuitbreaker

import (
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/policy"
)

// circuitGuard excludes containers with an open breaker from a request, and records the
// outcomes of its attempts.
type circuitGuard struct {
	policy  *CircuitBreaker
	circuit *circuit
	request *http.Request
	known   policy.InstanceResolver // identifies containers; nil if only addresses are known

	address string // address of the current attempt
	breaker *breaker
	ticket  uint64
	inside  bool

	entered  bool          // an attempt was made
	rejected bool          // a container was rejected
	wait     time.Duration // shortest time until a rejecting breaker admits a probe
}

// serveGuarded calls the next handler with a guard that uses one breaker for each
// container.
func (p *CircuitBreaker) serveGuarded(c *circuit, state policy.GuardSetter, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	guard := circuitGuards.Get().(*circuitGuard)
	httpx.WatchBody(r)
	guard.policy, guard.circuit, guard.request = p, c, r
	guard.known, _ = state.(policy.InstanceResolver)
	before := state.SetGuard(guard)
	returned := false
	defer func() {
		state.SetGuard(before)
		guard.leave(unknown) // an attempt that End was not called for
		if returned {        // after a panic, another goroutine may use the guard
			*guard = circuitGuard{}
			circuitGuards.Put(guard)
		}
	}()
	err := next.ServeHTTP(w, r)
	returned = true
	if err != nil && guard.rejected && !guard.entered && failure.ClassifyRequest(r, 0, err).Cause == failure.Gateway {
		return p.reject(w, r, guard.wait)
	}
	return err
}

var circuitGuards = sync.Pool{New: func() any { return new(circuitGuard) }}

// Allows implements policy.UpstreamGuard.
func (g *circuitGuard) Allows(address string) bool {
	if g.circuit.notClosed.Load() == 0 {
		return true
	}
	b := g.breakerOf(address)
	if !b.isRejecting() {
		return true
	}
	_, wait := b.current()
	g.reject(wait)
	return false
}

// reject records that a container was rejected.
func (g *circuitGuard) reject(wait time.Duration) {
	if !g.rejected || wait < g.wait {
		g.wait = wait
	}
	g.rejected = true
}

// Begin implements policy.UpstreamGuard.
func (g *circuitGuard) Begin(address string) bool {
	g.leave(unknown) // the previous attempt
	b := g.breakerOf(address)
	admission := b.begin()
	g.report(b, address, admission.change)
	if !admission.admitted {
		g.reject(admission.wait)
		return false
	}
	g.address, g.breaker, g.ticket = address, b, admission.ticket
	g.inside, g.entered = true, true
	return true
}

// End implements policy.UpstreamGuard.
func (g *circuitGuard) End(status int, err error) {
	g.leave(g.policy.judge(g.request, status, err))
}

// leave ends the current attempt, if any.
func (g *circuitGuard) leave(how outcome) {
	if g.inside {
		g.inside = false
		g.report(g.breaker, g.address, g.breaker.end(g.ticket, how))
	}
}

func (g *circuitGuard) breakerOf(address string) *breaker {
	if g.known == nil {
		return g.circuit.of(address)
	}
	return g.circuit.at(address, g.known.Instance(address))
}

func (g *circuitGuard) report(b *breaker, address string, change change) {
	g.circuit.countChange(b, change)
	g.policy.report(g.circuit, address, change)
}

// Interface guard
var _ policy.UpstreamGuard = (*circuitGuard)(nil)
