package circuitbreaker

import (
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
	request *http.Request
	known   policy.InstanceExchange // tells containers apart; nil: addresses alone

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
	policy.WatchBody(r)
	guard.policy, guard.circuit, guard.request = p, c, r
	guard.known, _ = exchange.(policy.InstanceExchange)
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
	if err != nil && guard.refused && !guard.entered && policy.JudgeRequest(r, 0, err).Blame == policy.BlameGateway {
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
	b := g.breakerOf(address)
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
	b := g.breakerOf(address)
	pass := b.begin()
	g.tell(b, address, pass.change)
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
	g.leave(g.policy.judge(g.request, status, err))
}

func (g *circuitGuard) leave(how verdict) {
	if g.inside {
		g.inside = false
		g.tell(g.breaker, g.address, g.breaker.end(g.ticket, how))
	}
}

func (g *circuitGuard) breakerOf(address string) *breaker {
	if g.known == nil {
		return g.circuit.of(address)
	}
	return g.circuit.at(address, g.known.Instance(address))
}

func (g *circuitGuard) tell(b *breaker, address string, change change) {
	g.circuit.note(b, change)
	g.policy.tell(g.circuit, address, change)
}

// Interface guard
var _ policy.Guard = (*circuitGuard)(nil)
