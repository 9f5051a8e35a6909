package ratelimit

import (
	"cmp"
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(Throttle))
	httpcaddyfile.RegisterHandlerDirective("rgate_throttle", policy.Directive[Throttle])
}

// Throttle is a handler that delays requests above a rate and releases them evenly, in
// order of arrival. If the queue is full or the delay exceeds `max_wait`, requests are
// rejected with 429 and `Retry-After`.
type Throttle struct {
	policy.Base

	// The number of requests per window, 1 to 1000000000. For example, 10 with a window
	// of `1s` releases one request every 100ms. Required.
	Requests int64 `json:"requests,omitempty" caddyfile:"arg"`

	// The length of the window. Range: 1ms to 8784h. Required.
	Window caddy.Duration `json:"window,omitempty" caddyfile:"arg"`

	// The number of requests that continue without delay after an idle period, 1 to
	// 1000000. Default: 1.
	Burst int64 `json:"burst,omitempty" default:"1"`

	RateKey

	// The maximum number of waiting requests per key, 1 to 10000. All keys together can
	// have at most 10000 waiting requests. Default: 100.
	Queue int `json:"queue,omitempty" default:"100"`

	// The maximum delay of a request, up to 24h. Requests that would wait longer are
	// rejected immediately. Default: 30s.
	MaxWait caddy.Duration `json:"max_wait,omitempty" default:"30s"`

	rate   rate
	queues *queues
	spaces [2]uint64
	holds  bool // whether the queues are acquired
}

const (
	maxBurst       = 1_000_000
	defaultQueue   = 100
	defaultMaxWait = 30 * time.Second
	maxMaxWait     = 24 * time.Hour
)

// CaddyModule returns the Caddy module information.
func (*Throttle) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_throttle",
		New: func() caddy.Module { return new(Throttle) },
	}
}

// throttles holds the queues of the process by the identity of their policy. They survive
// reloads, including the waiting requests.
var throttles = caddy.NewUsagePool()

// Destruct implements caddy.Destructor. Waiting requests still continue in turn.
func (*queues) Destruct() error { return nil }

// Provision acquires the queues.
func (p *Throttle) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "throttle"); err != nil {
		return err
	}
	if p.Off() {
		return nil
	}
	if err := p.Check(); err != nil { // prevents a division by zero
		return err
	}
	if err := registerRateMetrics(ctx); err != nil {
		return err
	}
	identifying := Throttle{Requests: p.Requests, Window: p.Window, RateKey: p.RateKey}
	if err := p.RateKey.provision(ctx, p, &identifying, false); err != nil {
		return err
	}
	p.Burst = cmp.Or(p.Burst, 1)
	p.Queue = cmp.Or(p.Queue, defaultQueue)
	p.MaxWait = cmp.Or(p.MaxWait, caddy.Duration(defaultMaxWait))
	p.rate = newRate(limit{p.Requests, time.Duration(p.Window)}, p.Burst, p.Queue, time.Duration(p.MaxWait))
	shared, _, err := throttles.LoadOrNew(p.identity, func() (caddy.Destructor, error) { return newQueues(), nil })
	if err != nil {
		return err
	}
	p.queues, p.holds = shared.(*queues), true
	p.spaces = p.RateKey.spaces(p.queues.hasher)
	return nil
}

// Check returns the first invalid option as an *options.Error.
func (p *Throttle) Check() error {
	if p.Off() {
		return nil
	}
	if err := cmp.Or(checkLimit("", p.Requests, p.Window), p.RateKey.check()); err != nil {
		return err
	}
	switch {
	case p.Burst < 0 || p.Burst > maxBurst:
		return options.Errorf("burst", "invalid burst %d: must be 1 to %d", p.Burst, maxBurst)
	case p.Queue < 0 || p.Queue > maxWaiting:
		return options.Errorf("queue", "invalid queue %d: must be 1 to %d", p.Queue, maxWaiting)
	case p.MaxWait < 0 || p.MaxWait > caddy.Duration(maxMaxWait):
		return options.Errorf("max_wait", "invalid max_wait %v: must be a positive duration of at most 24h, such as 30s", time.Duration(p.MaxWait))
	}
	return nil
}

// Validate implements caddy.Validator.
func (p *Throttle) Validate() error { return p.Check() }

// Cleanup releases the queues.
func (p *Throttle) Cleanup() error {
	var err error
	if p.holds {
		_, err = throttles.Delete(p.identity)
		p.holds = false
	}
	return errors.Join(err, p.RateKey.release())
}

const statusClientClosedRequest = 499 // as in Caddy's reverse_proxy

// ServeHTTP delays a request above the rate, or rejects it if the queue is full or the
// delay is too long.
func (p *Throttle) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	queues := p.queues
	waiter, after, ok := queues.enter(p.hash(r, queues.hasher, &p.spaces), p.rate)
	if !ok {
		setRetryAfter(w.Header(), after)
		return p.RefuseWithJSON(w, r, http.StatusTooManyRequests, errThrottled)
	}
	if waiter != nil {
		select {
		case <-waiter.turn:
		case <-r.Context().Done():
			queues.leave(waiter)
			return caddyhttp.Error(statusClientClosedRequest, r.Context().Err())
		}
	}
	return next.ServeHTTP(w, r)
}

var errThrottled = errors.New("the throttle queue is full or the wait exceeds max_wait")

// Interface guards
var (
	_ caddy.Provisioner  = (*Throttle)(nil)
	_ caddy.Validator    = (*Throttle)(nil)
	_ caddy.CleanerUpper = (*Throttle)(nil)
	_ policy.Module      = (*Throttle)(nil)
)
