package balance

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/dialing"
	"github.com/rgate/rgate/internal/monotime"
)

func init() {
	caddy.RegisterModule(new(LeastLatency))
}

// LeastLatency is a selection policy that chooses the better of two random upstreams
// (Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001). The better
// one has the lower product of its recent latency and its requests in flight, including
// the new request. Latencies within a factor of 1.5 are considered equal.
//
// Latency is the time to the first byte of a response. It is averaged with a half-life of
// one second. It follows slower responses immediately, but at most doubles each time. It
// expires ten seconds after the last response. An upstream without a known latency gets
// one request immediately, and until its response as many requests as the others.
//
// An upstream rests for one second after a connection failure, a timeout or a 5xx
// response. Each further failure doubles the time, up to ten seconds. Then the upstream
// gets one request as a probe. While it rests, it is selected only if all other upstreams
// rest too.
type LeastLatency struct {
	table    *table
	acquired bool
	attemptTracking
}

// CaddyModule returns the Caddy module information.
func (*LeastLatency) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.selection_policies.least_latency",
		New: func() caddy.Module { return new(LeastLatency) },
	}
}

// Provision wraps the proxy's transport to measure round trips.
func (p *LeastLatency) Provision(ctx caddy.Context) error {
	var err error
	if p.table, err = acquireTable(); err != nil {
		return err
	}
	p.acquired = true
	if p.retrying = dialing.ProxyOf(ctx); p.retrying != nil {
		return timeRoundTrips(ctx, p.retrying, p.table)
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

// Select returns the better of two available upstreams, or nil if none is available. A
// retry goes to an upstream that the request has not been sent to.
func (p *LeastLatency) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	return p.selectUntried(p.choose, pool, r, w)
}

func (p *LeastLatency) choose(pool reverseproxy.UpstreamPool, _ *http.Request, _ http.ResponseWriter) *reverseproxy.Upstream {
	return p.table.choose(pool, monotime.Now())
}

// choose returns the better of two random upstreams. If one is unavailable or rests, it
// searches the whole pool.
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

// search returns the better of two random upstreams among those that do not rest. If all
// rest, it selects among all available upstreams.
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

// candidate is an upstream with its view. If upstream is nil, the upstream is
// unavailable.
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

// orBetter returns other if it is better, and c otherwise.
func (c candidate) orBetter(other candidate) candidate {
	if other.before(c.view) {
		return other
	}
	return c
}

// sample is a random sample of two out of any number of candidates (Vitter, Random
// Sampling with a Reservoir, 1985, algorithm R).
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
