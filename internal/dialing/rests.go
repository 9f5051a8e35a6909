// Package dialing controls how reverse proxies connect to upstreams: which addresses
// they avoid after a failed dial, which connections they share, and which addresses they
// must not reach.
package dialing

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/monotime"
)

const (
	// The time that an address rests after its first failed dial, and the maximum after
	// repeated failures.
	firstRest   = time.Second
	longestRest = 30 * time.Second

	// The time after the end of a rest at which the failures of an address expire.
	forgetAfter = time.Minute
)

// Instance identifies the process behind an address. The zero value identifies the
// process of a static address.
type Instance struct {
	ID      string // container ID
	Started int64  // last known start, in nanoseconds since 1970; 0: unknown
}

// Rests records addresses whose last dial failed. Such an address rests: other upstreams
// are selected instead. The time doubles with each further failure. After it, one request
// at a time probes the address. The zero value is ready to use. All methods are safe for
// concurrent use.
type Rests struct {
	count atomic.Int32 // number of entries in byDial

	mu      sync.Mutex
	byDial  map[string]*rest // Guarded by mu.
	sweepAt time.Duration    // time of the next removal of expired entries. Guarded by mu.
}

// rest is the state of an address after a failed dial.
type rest struct {
	instance Instance
	failures int // failed dials since the last success
	until    time.Duration
	probing  bool // a request probes the address
	cause    string
}

// Empty reports whether no address rests.
func (all *Rests) Empty() bool { return all.count.Load() == 0 }

// Succeeded ends the rest of an address. It is called for every response.
func (all *Rests) Succeeded(dial string) {
	if all.Empty() {
		return
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	all.remove(dial)
}

// Failed records a failed dial. Concurrent failures count as one. An address with a
// placeholder never rests, because it represents several upstreams.
func (all *Rests) Failed(dial string, instance Instance, cause error) {
	if strings.Contains(dial, "{") {
		return
	}
	now := monotime.Now()
	all.mu.Lock()
	defer all.mu.Unlock()
	of := all.byDial[dial]
	switch {
	case of == nil || of.instance != instance:
		if of == nil {
			all.count.Add(1)
		}
		if all.byDial == nil {
			all.byDial = make(map[string]*rest)
		}
		of = &rest{instance: instance}
		all.byDial[dial] = of
	case now < of.until && !of.probing:
		return
	}
	of.failures++
	of.until, of.probing, of.cause = now+of.pause(), false, cause.Error()
}

// pause returns the duration of the current rest.
func (of *rest) pause() time.Duration {
	return min(firstRest<<min(of.failures-1, 5), longestRest)
}

// remove removes an entry. The caller holds mu.
func (all *Rests) remove(dial string) {
	if _, ok := all.byDial[dial]; ok {
		delete(all.byDial, dial)
		all.count.Add(-1)
	}
}

// Select selects an upstream that does not rest. If no other is available, it selects
// among those that rest. instance returns the process behind an address.
func (all *Rests) Select(inner reverseproxy.Selector, pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter,
	instance func(dial string) Instance,
) *reverseproxy.Upstream {
	ready, resting := all.split(pool, instance)
	chosen := inner.Select(ready, r, w)
	if chosen == nil && len(resting) > 0 {
		chosen = inner.Select(resting, r, w)
	}
	if chosen != nil {
		all.probe(chosen.Dial)
	}
	return chosen
}

// split divides a pool into upstreams that do not rest and upstreams that rest.
func (all *Rests) split(pool reverseproxy.UpstreamPool, instance func(dial string) Instance) (ready, resting reverseproxy.UpstreamPool) {
	now := monotime.Now()
	all.mu.Lock()
	defer all.mu.Unlock()
	all.sweep(now)
	ready = make(reverseproxy.UpstreamPool, 0, len(pool))
	for _, upstream := range pool {
		if all.resting(upstream.Dial, instance, now) == nil {
			ready = append(ready, upstream)
		} else {
			resting = append(resting, upstream)
		}
	}
	return ready, resting
}

// resting returns the entry of an address that rests, or nil. It removes the entry of a
// process that no longer has the address. The caller holds mu.
func (all *Rests) resting(dial string, instance func(dial string) Instance, now time.Duration) *rest {
	of := all.byDial[dial]
	if of == nil || now >= of.until {
		return nil
	}
	if of.instance != instance(dial) {
		all.remove(dial)
		return nil
	}
	return of
}

// probe starts a probe of an address whose rest has ended. Until the probe fails or
// succeeds, at most for the time of the last rest, other requests avoid the address.
func (all *Rests) probe(dial string) {
	now := monotime.Now()
	all.mu.Lock()
	defer all.mu.Unlock()
	if of := all.byDial[dial]; of != nil && now >= of.until {
		of.until, of.probing = now+of.pause(), true
	}
}

// sweep removes expired entries, such as those of removed containers. The caller holds
// mu.
func (all *Rests) sweep(now time.Duration) {
	if all.sweepAt != 0 && now < all.sweepAt {
		return
	}
	all.sweepAt = now + longestRest
	for dial, of := range all.byDial {
		if now-of.until > forgetAfter {
			all.remove(dial)
		}
	}
}

// Reason returns the reason why an address rests, or "".
func (all *Rests) Reason(dial string, instance func(dial string) Instance) string {
	if all.Empty() {
		return ""
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	of := all.resting(dial, instance, monotime.Now())
	if of == nil {
		return ""
	}
	return fmt.Sprintf("resting after a failed dial (%d in a row): %s", of.failures, of.cause)
}
