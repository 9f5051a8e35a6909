package traffic

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
)

// circuitGuard keeps a request away from the containers whose breakers are open,
// and tells the breakers of those that it went to how they did.
type circuitGuard struct {
	policy  *CircuitBreaker
	circuit *circuit
	upload  *policy.WatchedBody

	address string // where the request is
	breaker *breaker
	ticket  uint64
	inside  bool

	entered bool          // whether it has been anywhere
	refused bool          // whether it was kept away from anywhere
	wait    time.Duration // the shortest time until that may change
}

// serveGuarded calls the next handler, with a breaker around each container.
func (p *CircuitBreaker) serveGuarded(c *circuit, exchange policy.GuardedExchange, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	guard := circuitGuards.Get().(*circuitGuard)
	guard.policy, guard.circuit, guard.upload = p, c, policy.WatchBody(r)
	before := exchange.Guard(guard)
	returned := false
	defer func() {
		exchange.Guard(before)
		guard.leave(unknown) // it was chosen, and nothing was heard of it
		if returned {        // else a goroutine that outlives a panic may still ask it
			*guard = circuitGuard{}
			circuitGuards.Put(guard)
		}
	}()
	err := next.ServeHTTP(w, r)
	returned = true
	if err != nil && guard.refused && !guard.entered && isNoUpstream(err) {
		return p.refuse(w, r, guard.wait)
	}
	return err
}

var circuitGuards = sync.Pool{New: func() any { return new(circuitGuard) }}

// Admits implements policy.Guard.
func (g *circuitGuard) Admits(address string) bool {
	if g.circuit.troubled.Load() == 0 {
		return true
	}
	b := g.circuit.of(address)
	if !b.full() {
		return true
	}
	_, wait := b.look()
	g.keptAway(wait)
	return false
}

func (g *circuitGuard) keptAway(wait time.Duration) {
	if !g.refused || wait < g.wait {
		g.wait = wait
	}
	g.refused = true
}

// Enter implements policy.Guard.
func (g *circuitGuard) Enter(address string) bool {
	g.leave(unknown) // where it was before
	b := g.circuit.of(address)
	pass := b.begin()
	g.tell(address, pass.change)
	if !pass.admitted {
		g.keptAway(pass.wait)
		return false
	}
	g.address, g.breaker, g.ticket = address, b, pass.ticket
	g.inside, g.entered = true, true
	return true
}

// Left implements policy.Guard.
func (g *circuitGuard) Left(status int, err error) {
	switch {
	case err == nil:
		g.leave(g.policy.ofStatus(status))
	case errors.Is(err, context.Canceled) || g.upload.Failed():
		g.leave(unknown)
	default:
		g.leave(failed)
	}
}

func (g *circuitGuard) leave(how verdict) {
	if g.inside {
		g.inside = false
		g.tell(g.address, g.breaker.end(g.ticket, how))
	}
}

func (g *circuitGuard) tell(address string, change change) {
	g.circuit.note(change)
	g.policy.tell(g.circuit, address, change)
}

// Interface guard
var _ policy.Guard = (*circuitGuard)(nil)
