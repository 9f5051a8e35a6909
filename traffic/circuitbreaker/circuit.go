package circuitbreaker

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/monotime"
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/policy"
)

// circuits holds the states of all circuit breakers by circuitKey. They survive
// configuration reloads.
var circuits = caddy.NewUsagePool()

// circuitKey is the key of a state. Breakers with different options have separate states.
type circuitKey struct {
	gateway, backend, name string
	breakerOptions
	perContainer bool
	position     string // set outside of a gateway if name is empty
}

// circuit is the state of a backend's circuit breaker.
type circuit struct {
	circuitKey
	whole *breaker
	end   func() // stops publishing the state

	notClosed atomic.Int32 // number of containers whose breaker is not closed

	// The breakers of containers by address, used in place of whole. The map is
	// immutable: changes replace it.
	containers atomic.Pointer[map[string]*breaker]

	mu      sync.Mutex // held while containers is replaced
	pruneAt int        // number of containers that triggers pruning. Guarded by mu.
	retired [3]uint64  // transitions of removed breakers by state. Guarded by mu.
}

// Destruct implements caddy.Destructor.
func (c *circuit) Destruct() error {
	c.end()
	return nil
}

// circuitAt returns the state for the backend of place.
func (p *CircuitBreaker) circuitAt(place policy.RouteInfo) *circuit {
	place.Route = ""
	if c, ok := p.circuits.Get(place); ok {
		return c
	}
	return p.circuits.Add(place, func() (*circuit, func()) {
		key := circuitKey{gateway: place.Gateway, backend: place.Backend, name: p.Name, breakerOptions: p.options}
		inGateway := place != policy.RouteInfo{}
		key.perContainer = p.PerContainer && inGateway
		if !inGateway {
			key.position = p.position.String()
		}
		c, _, _ := circuits.LoadOrNew(key, func() (caddy.Destructor, error) { return newCircuit(key), nil }) // never fails
		return c.(*circuit), func() { _, _ = circuits.Delete(key) }
	})
}

// reuse acquires existing states with the same name and options that differ from new
// states. Without it, they could be removed with the old configuration before the first
// request arrives.
func (p *CircuitBreaker) reuse() {
	var keys []circuitKey
	circuits.Range(func(key, value any) bool {
		k := key.(circuitKey)
		if k.breakerOptions == p.options && k.name == p.Name && k.position == "" && value.(*circuit).hasState() {
			keys = append(keys, k)
		}
		return true
	})
	for _, key := range keys {
		_, _, _ = circuits.LoadOrNew(key, func() (caddy.Destructor, error) { return newCircuit(key), nil })
		p.circuits.Keep(func() { _, _ = circuits.Delete(key) })
	}
}

func (c *circuit) hasState() (yes bool) {
	c.each(func(_ string, b *breaker) { yes = yes || b.hasState() })
	return yes
}

func newCircuit(key circuitKey) *circuit {
	c := &circuit{circuitKey: key, whole: newBreaker(key.breakerOptions, monotime.Now), pruneAt: 64}
	c.containers.Store(new(map[string]*breaker))
	c.end = status.CircuitBreakers.Publish(status.Backend{Gateway: key.gateway, Name: key.backend}, c.report)
	return c
}

// label returns the name of the backend, or of the state outside of a gateway, for metrics
// and logs.
func (c *circuit) label() string {
	if c.backend == "" {
		return c.name
	}
	return c.backend
}

// of returns the breaker of a static address.
func (c *circuit) of(address string) *breaker { return c.at(address, policy.Instance{}) }

// at returns the breaker of a container. A restarted container, or another container with
// the same address, gets a new breaker.
func (c *circuit) at(address string, instance policy.Instance) *breaker {
	if b := (*c.containers.Load())[address]; b != nil && b.instance == instance {
		return b
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	containers := *c.containers.Load()
	before := containers[address]
	if before != nil && before.instance == instance {
		return before
	}
	if len(containers) >= c.pruneAt {
		containers = c.pruned(containers)
	} else if containers = maps.Clone(containers); containers == nil {
		containers = make(map[string]*breaker)
	}
	if before != nil && !before.retired {
		c.retire(before)
	}
	b := newBreaker(c.breakerOptions, monotime.Now)
	b.instance = instance
	containers[address] = b
	c.containers.Store(&containers)
	return b
}

// countChange updates the number of containers whose breaker is not closed.
func (c *circuit) countChange(b *breaker, change change) {
	difference := int32(0)
	switch {
	case !change.happened():
		return
	case change.from == circuitClosed:
		difference = 1
	case change.to == circuitClosed:
		difference = -1
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !b.retired {
		b.notClosed += difference
		c.notClosed.Add(difference)
	}
}

// retire removes a breaker from notClosed and keeps its transitions. The caller must hold
// mu.
func (c *circuit) retire(b *breaker) {
	c.notClosed.Add(-b.notClosed)
	b.retired = true
	for s := range c.retired {
		c.retired[s] += b.entered[s].Load()
	}
}

// pruned returns the breakers that are not closed or have counted consecutive failures. It
// retires the others, including breakers with failures within `window`, because many of
// their containers no longer exist. The caller must hold mu.
func (c *circuit) pruned(containers map[string]*breaker) map[string]*breaker {
	kept := make(map[string]*breaker)
	for address, b := range containers {
		if stateIn(b.phase.Load()) != circuitClosed || b.run.Load() != 0 {
			kept[address] = b
			continue
		}
		c.retire(b)
	}
	c.pruneAt = 2*len(kept) + 64
	return kept
}

// report returns the published state of the circuit breaker.
func (c *circuit) report() status.CircuitBreaker {
	report := status.CircuitBreaker{Name: c.name}
	if !c.perContainer {
		state, rest := c.whole.current()
		report.State, report.RetryAfter = state.String(), rest.Round(time.Millisecond).Seconds()
		return report
	}
	report.Containers = make(map[string]string)
	c.each(func(address string, b *breaker) {
		if state, _ := b.current(); state != circuitClosed {
			report.Containers[address] = state.String()
		}
	})
	return report
}

// each calls f for each breaker. The address of the backend's breaker is empty.
func (c *circuit) each(f func(address string, b *breaker)) {
	f("", c.whole)
	for address, b := range *c.containers.Load() {
		f(address, b)
	}
}
