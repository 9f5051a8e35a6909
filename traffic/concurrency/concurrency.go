// Package concurrency implements the handler rgate_concurrency, which limits the number of
// requests in flight.
package concurrency

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/lease"
	"github.com/rgate/rgate/internal/metrics"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/placeholder"
	"github.com/rgate/rgate/internal/status"
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

// Concurrency limits the number of requests to a backend in flight. Further requests wait
// in a FIFO queue. If the queue is full or a request waits for too long, the response is
// 503.
//
// A request is in flight until its response is complete. A WebSocket is in flight until
// it is closed. If the client disconnects, the permit is released immediately.
type Concurrency struct {
	policy.Base

	// The maximum number of requests in flight, from 1 to 1,000,000. Required.
	Max int `json:"max,omitempty" caddyfile:"arg"`

	// The maximum number of waiting requests, from 0 to 1,000,000. Default: 0. Requests
	// over `max` are rejected immediately.
	Queue int `json:"queue,omitempty" caddyfile:"arg"`

	// The maximum time that a request waits, from 1ms to 1h. Requires `queue`. Default:
	// 1s.
	QueueTimeout caddy.Duration `json:"queue_timeout,omitempty" caddyfile:"arg" default:"1s"`

	// A key with placeholders, such as `{http.rgate.route}`, `{http.vars.client_ip}` or
	// `{http.auth.user.id}`. `max` and `queue` apply separately to each value of the key.
	// Default: none. The limits apply to all requests of a backend together.
	Key string `json:"key,omitempty"`

	// The name of the limit. Outside of a gateway, handlers with the same name and `key`
	// share the limit. In a gateway, limits of a backend with different names are
	// separate. Default: none. The position in the configuration identifies the limit.
	Name string `json:"name,omitempty"`

	key      *placeholder.Key
	limiters lease.Set[policy.RouteInfo, *sharedLimiter]
	own      *sharedLimiter  // limiter of the backend that contains the policy; nil if none
	position policy.Position // set outside of a gateway if Name is empty
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
	if err := placeholder.CheckKey("key", p.Key); err != nil {
		return err
	}
	switch {
	case p.Off():
		return nil
	case p.Max == 0:
		return options.Errorf("max", "max is required: set the maximum number of requests in flight, such as max: 100")
	case p.Max < 0 || p.Max > maxConcurrency:
		return options.Errorf("max", "invalid max %d: must be 1 to %d", p.Max, maxConcurrency)
	case p.Queue < 0 || p.Queue > maxConcurrency:
		return options.Errorf("queue", "invalid queue %d: must be 0 to %d", p.Queue, maxConcurrency)
	case timeout != 0 && p.Queue == 0:
		return options.Errorf("queue_timeout", "queue_timeout requires queue: set queue or remove queue_timeout")
	case timeout != 0 && (timeout < time.Millisecond || timeout > time.Hour):
		return options.Errorf("queue_timeout", "invalid queue_timeout %v: must be 1ms to 1h", timeout)
	case p.Key != "" && !placeholder.Has(p.Key):
		return options.Errorf("key", "invalid key %q: must have a placeholder, such as {http.rgate.route}", p.Key)
	}
	return nil
}

// Provision sets up the policy. Its limiter is acquired here, except if the policy belongs
// to several backends.
func (p *Concurrency) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "concurrency"); err != nil {
		return err
	}
	if p.Queue > 0 {
		p.QueueTimeout = cmp.Or(p.QueueTimeout, caddy.Duration(defaultQueueTimeout))
	}
	if p.Key != "" {
		placeholder.WarnUnknown(ctx, "key", p.Key)
		key := placeholder.ParseKey(p.Key)
		p.key = &key
	}
	scope := policy.ScopeOf(ctx)
	if backend, ok := scope.BackendRef(); ok {
		p.own = p.limiterAt(backend)
	} else if scope.Level == "" {
		if p.Name == "" {
			p.position = policy.PositionOf(ctx, "concurrency")
		}
		p.limiterAt(policy.RouteInfo{})
	}
	return metrics.Register(ctx, concurrencyCollector{})
}

// Validate implements caddy.Validator.
func (p *Concurrency) Validate() error { return p.Check() }

// Cleanup releases the limiters.
func (p *Concurrency) Cleanup() error {
	p.limiters.Release()
	p.position.Release()
	return nil
}

// ServeHTTP forwards a request when it gets a permit, or responds with 503.
func (p *Concurrency) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	limiter, key := p.own, ""
	if limiter == nil {
		limiter = p.limiterAt(policy.RouteInfoOf(r))
	}
	if p.key != nil {
		key = p.key.Of(r)
	}
	held, queued := limiter.enter(key, p.Queue)
	if queued != nil {
		defer readEarly(r).halt() // runs after the permit is released
		if err := p.await(r.Context(), limiter, queued); err != nil {
			return p.reject(w, r, err)
		}
		held = queued.queue
	}
	if held == nil {
		return p.reject(w, r, errQueueFull)
	}
	defer limiter.leave(held)
	return next.ServeHTTP(w, r)
}

var (
	errQueueFull    = errors.New("too many requests in flight, and no free position in the queue")
	errQueueTimeout = errors.New("timed out waiting in the queue")
)

// await waits until a queued request gets a permit.
func (p *Concurrency) await(ctx context.Context, limiter *sharedLimiter, queued *waiter) error {
	timer := time.NewTimer(time.Duration(p.QueueTimeout))
	defer timer.Stop()
	var err error
	select {
	case <-queued.admitted:
		return nil
	case <-timer.C:
		err = errQueueTimeout
	case <-ctx.Done():
		if err = ctx.Err(); errors.Is(err, context.DeadlineExceeded) {
			err = errQueueTimeout
		}
	}
	if limiter.giveUp(queued, err == errQueueTimeout) {
		return err
	}
	if err == errQueueTimeout {
		return nil // the request got a permit in the meantime
	}
	limiter.leave(queued.queue)
	return err
}

// reject responds to a request that gets no permit.
func (p *Concurrency) reject(w http.ResponseWriter, r *http.Request, err error) error {
	if errors.Is(err, context.Canceled) {
		return caddyhttp.Error(failure.StatusClientClosedRequest, err)
	}
	w.Header().Set("Retry-After", "1")
	return p.RefuseWithFallback(w, r, http.StatusServiceUnavailable, err)
}

// sharedLimiters holds the limiters of all policies by limiterKey. They survive
// configuration reloads, so that requests in flight remain counted.
var sharedLimiters = caddy.NewUsagePool()

type limiterKey struct {
	gateway, backend, name, key string
	position                    string // set outside of a gateway if name is empty
}

// sharedLimiter is a limiter that is shared by all handlers with the same limiterKey.
type sharedLimiter struct {
	*limiter
	limiterKey
	end  func()       // stops publishing the state
	uses atomic.Int32 // handlers that use the limiter
}

// Destruct implements caddy.Destructor.
func (l *sharedLimiter) Destruct() error {
	l.end()
	return nil
}

// limiterAt returns the limiter for the backend of place.
func (p *Concurrency) limiterAt(place policy.RouteInfo) *sharedLimiter {
	place.Route = ""
	if l, ok := p.limiters.Get(place); ok {
		return l
	}
	return p.limiters.Add(place, func() (*sharedLimiter, func()) {
		key := limiterKey{gateway: place.Gateway, backend: place.Backend, name: p.Name, key: p.Key}
		if place == (policy.RouteInfo{}) {
			key.position = p.position.String()
		}
		shared, _, _ := sharedLimiters.LoadOrNew(key, func() (caddy.Destructor, error) { return newSharedLimiter(key), nil }) // never fails
		l := shared.(*sharedLimiter)
		l.uses.Add(1)
		release := l.limit(p.Max)
		return l, func() {
			release()
			l.uses.Add(-1)
			l.deleteWhenIdle()
		}
	})
}

// idleInterval is the time between checks whether a released limiter is idle.
const idleInterval = time.Second

// deleteWhenIdle releases the limiter. The last handler releases it when no requests are
// in flight, so that the next configuration counts them.
func (l *sharedLimiter) deleteWhenIdle() {
	if l.uses.Load() == 0 && l.counts().inFlight > 0 {
		time.AfterFunc(idleInterval, l.deleteWhenIdle)
		return
	}
	_, _ = sharedLimiters.Delete(l.limiterKey) // Destruct never fails
}

func newSharedLimiter(key limiterKey) *sharedLimiter {
	l := &sharedLimiter{limiter: newLimiter(), limiterKey: key}
	l.end = status.ConcurrencyLimits.Publish(status.Backend{Gateway: key.gateway, Name: key.backend}, l.report)
	return l
}

// label returns the name of the backend, or of the limit outside of a gateway, for
// metrics.
func (l *sharedLimiter) label() string {
	if l.backend == "" {
		return l.name
	}
	return l.backend
}

// report returns the published state of the limiter.
func (l *sharedLimiter) report() status.ConcurrencyLimit {
	now := l.counts()
	return status.ConcurrencyLimit{
		Name: l.name, Key: l.key, Max: now.max, InFlight: now.inFlight, Queued: now.queued, Rejected: now.full + now.timedOut,
	}
}

// Interface guards
var (
	_ caddy.Provisioner  = (*Concurrency)(nil)
	_ caddy.Validator    = (*Concurrency)(nil)
	_ caddy.CleanerUpper = (*Concurrency)(nil)
	_ policy.Module      = (*Concurrency)(nil)
)
