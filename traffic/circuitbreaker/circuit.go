package circuitbreaker

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/policy"
)

// circuits are the states of all circuit breakers, by circuitKey, so that they
// outlive reloads.
var circuits = caddy.NewUsagePool()

// circuitKey is what a state belongs to. One whose options are others is another.
type circuitKey struct {
	gateway, backend, name string
	breakerOptions
	perContainer bool
	owner        *CircuitBreaker // outside of a gateway, if it has no name
}

// circuit is the state of a backend's circuit breaker.
type circuit struct {
	circuitKey
	whole *breaker
	end   func() // of publishing it

	troubled atomic.Int32 // how many containers' breakers are not closed

	// The breakers of containers, by address, in place of whole. The map is never
	// changed, only replaced.
	containers atomic.Pointer[map[string]*breaker]

	mu      sync.Mutex // held to replace containers
	pruneAt int        // how many of them are too many. Guarded by mu.
	gone    [3]uint64  // what those that were forgotten had entered. Guarded by mu.
}

// Destruct implements caddy.Destructor.
func (c *circuit) Destruct() error {
	c.end()
	return nil
}

var processStart = time.Now()

// sinceStart is a monotonic clock.
func sinceStart() time.Duration { return time.Since(processStart) }

// circuitAt returns the state for the backend of a place.
func (p *CircuitBreaker) circuitAt(place policy.Place) *circuit {
	place.Route = ""
	if c, ok := p.circuits.Get(place); ok {
		return c
	}
	return p.circuits.Add(place, func() (*circuit, func()) {
		key := circuitKey{gateway: place.Gateway, backend: place.Backend, name: p.Name, breakerOptions: p.options}
		inGateway := place != policy.Place{}
		key.perContainer = p.PerContainer && inGateway
		if !inGateway && p.Name == "" {
			key.owner = p
		}
		c, _, _ := circuits.LoadOrNew(key, func() (caddy.Destructor, error) { return newCircuit(key), nil }) // it cannot fail
		return c.(*circuit), func() { _, _ = circuits.Delete(key) }
	})
}

// adopt keeps the states that handlers of the same options have, for the old
// configuration may be gone before the first request comes.
func (p *CircuitBreaker) adopt() {
	var keys []circuitKey
	circuits.Range(func(key, value any) bool {
		k := key.(circuitKey)
		if k.breakerOptions == p.options && k.name == p.Name && k.owner == nil && value.(*circuit).matters() {
			keys = append(keys, k)
		}
		return true
	})
	for _, key := range keys {
		_, _, _ = circuits.LoadOrNew(key, func() (caddy.Destructor, error) { return newCircuit(key), nil })
		p.circuits.Keep(func() { _, _ = circuits.Delete(key) })
	}
}

func (c *circuit) matters() (yes bool) {
	c.each(func(_ string, b *breaker) { yes = yes || b.matters() })
	return yes
}

func newCircuit(key circuitKey) *circuit {
	c := &circuit{circuitKey: key, whole: newBreaker(key.breakerOptions, sinceStart), pruneAt: 64}
	c.containers.Store(new(map[string]*breaker))
	c.end = policy.Publish("circuit_breaker", policy.Place{Gateway: key.gateway, Backend: key.backend}, func() any { return c.report() })
	return c
}

// label is what metrics and logs call the backend.
func (c *circuit) label() string {
	if c.backend == "" {
		return c.name
	}
	return c.backend
}

// of returns the breaker of an address that does not belong to a container.
func (c *circuit) of(address string) *breaker { return c.at(address, policy.Instance{}) }

// at returns the breaker of a container. One that has the address of another, or has
// been started again, has a new one.
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
	b := newBreaker(c.breakerOptions, sinceStart)
	b.instance = instance
	containers[address] = b
	c.containers.Store(&containers)
	return b
}

// note keeps count of the containers whose breakers are not closed.
func (c *circuit) note(b *breaker, change change) {
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
		b.troubled += difference
		c.troubled.Add(difference)
	}
}

// retire forgets a breaker, except for what it has entered. It must be called with mu
// held.
func (c *circuit) retire(b *breaker) {
	c.troubled.Add(-b.troubled)
	b.retired = true
	for s := range c.gone {
		c.gone[s] += b.entered[s].Load()
	}
}

// pruned is the containers without those that nothing is wrong with, of which many
// will be gone. It must be called with mu held.
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

// circuitReport is what operators are shown of a circuit breaker.
type circuitReport struct {
	Name       string            `json:"name,omitempty"`
	State      string            `json:"state,omitempty"`
	RetryAfter float64           `json:"retry_after_seconds,omitempty"`
	Containers map[string]string `json:"containers,omitempty"` // those that are not closed
}

// IsOpen reports whether no request gets to the backend.
func (r circuitReport) IsOpen() bool { return r.State == circuitOpen.String() }

// Impairs reports whether the backend gets requests, but not all: if it is probed, or
// if there is a circuit breaker for each container and that of one at these addresses
// is not closed.
func (r circuitReport) Impairs(addresses []string) bool {
	return r.State == circuitHalfOpen.String() ||
		slices.ContainsFunc(addresses, func(address string) bool { return r.Containers[address] != "" })
}

func (c *circuit) report() circuitReport {
	report := circuitReport{Name: c.name}
	if !c.perContainer {
		state, rest := c.whole.look()
		report.State, report.RetryAfter = state.String(), rest.Round(time.Millisecond).Seconds()
		return report
	}
	report.Containers = make(map[string]string)
	c.each(func(address string, b *breaker) {
		if state, _ := b.look(); state != circuitClosed {
			report.Containers[address] = state.String()
		}
	})
	return report
}

// each calls f with every breaker that there is.
func (c *circuit) each(f func(address string, b *breaker)) {
	f("", c.whole)
	for address, b := range *c.containers.Load() {
		f(address, b)
	}
}
