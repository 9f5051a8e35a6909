package concurrency

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/lease"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(Concurrency))
	httpcaddyfile.RegisterHandlerDirective("rgate_concurrency", policy.Directive[Concurrency])
}

const (
	defaultQueueTimeout = time.Second

	maxConcurrency = 1_000_000
)

// Concurrency bounds how many requests a backend has to deal with at once. Further
// ones wait for their turn, first come, first served; if too many wait, or one does
// for too long, the answer is 503.
//
// A request has its place until its answer is written to the end, a WebSocket as
// long as it is open. A client that leaves gives its place back at once.
type Concurrency struct {
	policy.Base

	// How many requests may be under way at once, 1 to 1,000,000. Required.
	Max int `json:"max,omitempty" caddyfile:"arg"`

	// How many more may wait, 0 to 1,000,000. Default: 0.
	Queue int `json:"queue,omitempty" caddyfile:"arg"`

	// How long each of them may wait, 1ms to 1h. Needs `queue`. Default: 1s.
	QueueTimeout caddy.Duration `json:"queue_timeout,omitempty" caddyfile:"arg" default:"1s"`

	// What requests are told apart by: each value has `max` and `queue` of its own.
	// A text with placeholders, such as `{http.rgate.route}`, `{http.vars.client_ip}`
	// or `{http.auth.user.id}`. Default: nothing, so that they are a backend's.
	Key string `json:"key,omitempty"`

	// The name under which requests are counted outside of a gateway; handlers of
	// the same name count together. In a gateway, it tells apart limits that would
	// count a backend's requests together. Default: none.
	Name string `json:"name,omitempty"`

	key      *policy.Key
	limiters lease.Set[policy.Place, *sharedLimiter]
	home     *sharedLimiter // of the backend that the policy stands on; nil: on none
}

// CaddyModule returns the Caddy module information.
func (*Concurrency) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_concurrency",
		New: func() caddy.Module { return new(Concurrency) },
	}
}

// Check implements policy.Module.
func (p *Concurrency) Check() error {
	timeout := time.Duration(p.QueueTimeout)
	if err := policy.CheckKey("key", p.Key); err != nil {
		return err
	}
	switch {
	case p.Off():
		return nil
	case p.Max == 0:
		return policy.Optionf("max", "max is missing: say how many requests may be under way at once, such as max: 100")
	case p.Max < 0 || p.Max > maxConcurrency:
		return policy.Optionf("max", "max %d is out of range: use 1 to %d", p.Max, maxConcurrency)
	case p.Queue < 0 || p.Queue > maxConcurrency:
		return policy.Optionf("queue", "queue %d is out of range: use 0 to %d", p.Queue, maxConcurrency)
	case timeout != 0 && p.Queue == 0:
		return policy.Optionf("queue_timeout", "nobody waits without a queue: set queue, or leave queue_timeout out")
	case timeout != 0 && (timeout < time.Millisecond || timeout > time.Hour):
		return policy.Optionf("queue_timeout", "queue_timeout %v is out of range: use 1ms to 1h", timeout)
	case p.Key != "" && !policy.HasPlaceholder(p.Key):
		return policy.Optionf("key", "%q has no placeholder and is the same for all requests: use one such as {http.rgate.route}, or leave it out", p.Key)
	}
	return nil
}

// Provision sets the limit up. Unless it stands on a backend, what it counts for which
// one shows when requests come.
func (p *Concurrency) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "concurrency"); err != nil {
		return err
	}
	if p.Queue > 0 {
		p.QueueTimeout = cmp.Or(p.QueueTimeout, caddy.Duration(defaultQueueTimeout))
	}
	if p.Key != "" {
		policy.WarnOfKey(ctx, "key", p.Key)
		key := policy.ParseKey(p.Key)
		p.key = &key
	}
	p.adopt()
	if home, ok := policy.Standing(ctx).Home(); ok {
		p.home = p.limiterAt(home)
	}
	return policy.RegisterMetrics(ctx, concurrencyCollector{})
}

// Validate implements caddy.Validator.
func (p *Concurrency) Validate() error { return p.Check() }

// Cleanup lets go of the places.
func (p *Concurrency) Cleanup() error {
	p.limiters.Release()
	return nil
}

// ServeHTTP lets a request through when there is a place for it, or answers it
// with 503.
func (p *Concurrency) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	limiter, key := p.home, ""
	if limiter == nil {
		limiter = p.limiterAt(policy.PlaceOf(r))
	}
	if p.key != nil {
		key = p.key.Of(r)
	}
	place, queued := limiter.enter(key, p.Queue)
	if queued != nil {
		defer readEarly(r).halt() // when the place is free again
		if err := p.await(r.Context(), limiter, queued); err != nil {
			return p.refuse(w, r, err)
		}
		place = queued.lane
	}
	if place == nil {
		return p.refuse(w, r, errQueueFull)
	}
	defer limiter.leave(place)
	return next.ServeHTTP(w, r)
}

var (
	errQueueFull = errors.New("too many requests are under way, and none or too many may wait")
	errQueueTime = errors.New("no place became free in time")
)

// await waits for the turn of a request.
func (p *Concurrency) await(ctx context.Context, limiter *sharedLimiter, queued *waiter) error {
	timer := time.NewTimer(time.Duration(p.QueueTimeout))
	defer timer.Stop()
	var err error
	select {
	case <-queued.turn:
		return nil
	case <-timer.C:
		err = errQueueTime
	case <-ctx.Done():
		if err = ctx.Err(); errors.Is(err, context.DeadlineExceeded) {
			err = errQueueTime
		}
	}
	if limiter.giveUp(queued, err == errQueueTime) {
		return err
	}
	if err == errQueueTime {
		return nil // it was its turn at the last moment
	}
	limiter.leave(queued.lane)
	return err
}

// refuse answers a request that is not let through.
func (p *Concurrency) refuse(w http.ResponseWriter, r *http.Request, err error) error {
	if errors.Is(err, context.Canceled) {
		return caddyhttp.Error(policy.StatusClientClosedRequest, err)
	}
	w.Header().Set("Retry-After", "1")
	return p.Fail(w, r, http.StatusServiceUnavailable, err)
}

// sharedLimiters are what all limits count, by limiterKey, so that a reload does
// not forget what is under way.
var sharedLimiters = caddy.NewUsagePool()

type limiterKey struct {
	gateway, backend, name, key string
	owner                       *Concurrency // outside of a gateway, if it has no name
}

// sharedLimiter is a limiter that the handlers of one key have in common.
type sharedLimiter struct {
	*limiter
	limiterKey
	end func() // of publishing it
}

// Destruct implements caddy.Destructor.
func (l *sharedLimiter) Destruct() error {
	l.end()
	return nil
}

// limiterAt returns what counts the requests of a place.
func (p *Concurrency) limiterAt(place policy.Place) *sharedLimiter {
	place.Route = ""
	if l, ok := p.limiters.Get(place); ok {
		return l
	}
	return p.limiters.Add(place, func() (*sharedLimiter, func()) {
		key := limiterKey{gateway: place.Gateway, backend: place.Backend, name: p.Name, key: p.Key}
		if place == (policy.Place{}) && p.Name == "" {
			key.owner = p
		}
		shared, _, _ := sharedLimiters.LoadOrNew(key, func() (caddy.Destructor, error) { return newSharedLimiter(key), nil }) // it cannot fail
		l := shared.(*sharedLimiter)
		letGo := l.hold(p.Max)
		return l, func() {
			letGo()
			_, _ = sharedLimiters.Delete(key)
		}
	})
}

// adopt keeps what handlers of the same options count, for the old configuration may
// be gone before the first request comes, and what it let through may not be.
func (p *Concurrency) adopt() {
	var keys []limiterKey
	sharedLimiters.Range(func(key, value any) bool {
		k := key.(limiterKey)
		if k.name == p.Name && k.key == p.Key && k.owner == nil && value.(*sharedLimiter).look().inFlight > 0 {
			keys = append(keys, k)
		}
		return true
	})
	for _, key := range keys {
		_, _, _ = sharedLimiters.LoadOrNew(key, func() (caddy.Destructor, error) { return newSharedLimiter(key), nil })
		p.limiters.Keep(func() { _, _ = sharedLimiters.Delete(key) })
	}
}

func newSharedLimiter(key limiterKey) *sharedLimiter {
	l := &sharedLimiter{limiter: newLimiter(), limiterKey: key}
	l.end = policy.Publish("concurrency", policy.Place{Gateway: key.gateway, Backend: key.backend}, func() any { return l.report() })
	return l
}

// label is what metrics call the backend.
func (l *sharedLimiter) label() string {
	if l.backend == "" {
		return l.name
	}
	return l.backend
}

// concurrencyReport is what operators are shown of a limit.
type concurrencyReport struct {
	Name     string `json:"name,omitempty"`
	Key      string `json:"key,omitempty"`
	Max      int    `json:"max"`
	InFlight int    `json:"in_flight"`
	Queued   int    `json:"queued"`
	Rejected uint64 `json:"rejected"`
}

func (l *sharedLimiter) report() concurrencyReport {
	load := l.look()
	return concurrencyReport{l.name, l.key, load.max, load.inFlight, load.queued, load.full + load.outOfTime}
}

// Interface guards
var (
	_ caddy.Provisioner  = (*Concurrency)(nil)
	_ caddy.Validator    = (*Concurrency)(nil)
	_ caddy.CleanerUpper = (*Concurrency)(nil)
	_ policy.Module      = (*Concurrency)(nil)
)
