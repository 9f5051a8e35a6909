package balance

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/monotime"
)

func init() {
	caddy.RegisterModule(new(LeastLatency))
}

// LeastLatency is a selection policy that takes the better of two random upstreams
// (Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001): the
// one with the lower product of its recent latency and the number of requests that it
// would have in flight. Latencies within a factor of 1.5 count as equal.
//
// Latency is the time until the first byte of a response. It is averaged with a
// half-life of one second, follows slower responses at once (but at most doubles each
// time), and expires ten seconds after the last response. An upstream without a known
// latency gets one request at once, and as many as the others until its response.
//
// An upstream rests for a second after a failed connection, a timeout, or a response
// with a status of 500 or above, and twice as long after each further failure, at most
// ten seconds. Then it is tried with one request. While it rests, it is selected only if
// all others rest as well.
type LeastLatency struct {
	table    *table
	acquired bool
}

// CaddyModule returns the Caddy module information.
func (*LeastLatency) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.selection_policies.least_latency",
		New: func() caddy.Module { return new(LeastLatency) },
	}
}

// Provision wraps the transport of the proxy to measure round trips.
func (p *LeastLatency) Provision(ctx caddy.Context) error {
	var err error
	if p.table, err = acquireTable(); err != nil {
		return err
	}
	p.acquired = true
	if proxy := proxyOf(ctx); proxy != nil {
		return timeRoundTrips(ctx, proxy, p.table)
	}
	return nil
}

// Cleanup releases the histories. Requests in flight can still use them.
func (p *LeastLatency) Cleanup() error {
	if !p.acquired {
		return nil
	}
	p.acquired = false
	return releaseTable()
}

// Select returns the better of two available upstreams, nil if there is none.
func (p *LeastLatency) Select(pool reverseproxy.UpstreamPool, _ *http.Request, _ http.ResponseWriter) *reverseproxy.Upstream {
	return p.table.choose(pool, monotime.Now())
}

// choose returns the better of two random upstreams.
func (t *table) choose(pool reverseproxy.UpstreamPool, now time.Duration) *reverseproxy.Upstream {
	if n := len(pool); n > 1 {
		i, j := rand.IntN(n), rand.IntN(n-1)
		if j >= i {
			j++
		}
		a, b := t.look(pool[i], now), t.look(pool[j], now)
		if a.ready() && b.ready() {
			return a.orBetter(b).upstream
		}
	}
	return t.search(pool, now)
}

// search takes two random upstreams among all that do not rest, or if all rest, among
// those.
func (t *table) search(pool reverseproxy.UpstreamPool, now time.Duration) *reverseproxy.Upstream {
	var rested, tired sample
	for _, upstream := range pool {
		switch c := t.look(upstream, now); {
		case c.ready():
			rested.add(c)
		case c.upstream != nil:
			tired.add(c)
		}
	}
	if rested.seen == 0 {
		rested = tired
	}
	switch rested.seen {
	case 0:
		return nil
	case 1:
		return rested.of[0].upstream
	}
	return rested.of[0].orBetter(rested.of[1]).upstream
}

// candidate is an upstream and its view. Without an upstream, it stands for an
// unavailable one.
type candidate struct {
	upstream *reverseproxy.Upstream
	view
}

func (t *table) look(upstream *reverseproxy.Upstream, now time.Duration) candidate {
	if !upstream.Available() {
		return candidate{}
	}
	return candidate{upstream, t.find(upstream.Dial).view(now, upstream.NumRequests())}
}

func (c candidate) ready() bool { return c.upstream != nil && !c.resting }

// orBetter returns the better of c and other.
func (c candidate) orBetter(other candidate) candidate {
	if other.before(c.view) {
		return other
	}
	return c
}

// sample selects two of any number of candidates at random (Vitter, Random Sampling
// with a Reservoir, 1985, algorithm R).
type sample struct {
	of   [2]candidate
	seen int
}

func (s *sample) add(c candidate) {
	s.seen++
	if s.seen <= len(s.of) {
		s.of[s.seen-1] = c
	} else if i := rand.IntN(s.seen); i < len(s.of) {
		s.of[i] = c
	}
}

// Interface guards
var (
	_ caddy.Provisioner     = (*LeastLatency)(nil)
	_ caddy.CleanerUpper    = (*LeastLatency)(nil)
	_ reverseproxy.Selector = (*LeastLatency)(nil)
)
