package ratelimit

import (
	"cmp"
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(Throttle))
	httpcaddyfile.RegisterHandlerDirective("rgate_throttle", policy.Directive[Throttle])
}

// Throttle delays requests that come too fast, and lets them go on evenly, in the
// order in which they came. A client that leaves gives its place to those behind.
// Requests for which there is no room are refused with 429 and `Retry-After`.
type Throttle struct {
	policy.Base

	// How many requests may go on per window, 1 to 1000000000: with 10 and `1s`, one
	// each 100ms. Required.
	Requests int64 `json:"requests,omitempty" caddyfile:"arg"`

	// The length of the window, 1ms to 8784h. Required.
	Window caddy.Duration `json:"window,omitempty" caddyfile:"arg"`

	// How many requests may go on at once after a time without any, 1 to 1000000.
	// Default: 1.
	Burst int64 `json:"burst,omitempty" default:"1"`

	RateKey

	// How many requests of a key may wait, 1 to 10000, which is also how many may wait
	// altogether. Default: 100.
	Queue int `json:"queue,omitempty" default:"100"`

	// How long a request may wait, at most 24h. One whose turn would come later is
	// refused at once. Default: 30s.
	MaxWait caddy.Duration `json:"max_wait,omitempty" default:"30s"`

	pace   pace
	lanes  *lanes
	spaces [2]uint64
	holds  bool // the lanes
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

// throttles are the lanes of the process, by the identity of their policy. They
// outlive reloads, and so do the places of those that wait.
var throttles = caddy.NewUsagePool()

// Destruct implements caddy.Destructor. Those that still wait go on in their time.
func (*lanes) Destruct() error { return nil }

// Provision takes hold of the lanes.
func (p *Throttle) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "throttle"); err != nil {
		return err
	}
	if p.Off() {
		return nil
	}
	if err := p.Check(); err != nil { // below, there is a division
		return err
	}
	if err := registerRateMetrics(ctx); err != nil {
		return err
	}
	essence := Throttle{Requests: p.Requests, Window: p.Window, RateKey: p.RateKey}
	if err := p.RateKey.provision(ctx, p, &essence); err != nil {
		return err
	}
	p.Burst = cmp.Or(p.Burst, 1)
	p.Queue = cmp.Or(p.Queue, defaultQueue)
	p.MaxWait = cmp.Or(p.MaxWait, caddy.Duration(defaultMaxWait))
	p.pace = newPace(limit{p.Requests, time.Duration(p.Window)}, p.Burst, p.Queue, time.Duration(p.MaxWait))
	shared, _, err := throttles.LoadOrNew(p.identity, func() (caddy.Destructor, error) { return newLanes(), nil })
	if err != nil {
		return err
	}
	p.lanes, p.holds = shared.(*lanes), true
	p.spaces = p.RateKey.spaces(p.lanes.hasher)
	return nil
}

// Check reports the first invalid option as a *policy.OptionError.
func (p *Throttle) Check() error {
	if p.Off() {
		return nil
	}
	if err := cmp.Or(checkLimit("", p.Requests, p.Window), p.RateKey.check()); err != nil {
		return err
	}
	switch {
	case p.Burst < 0 || p.Burst > maxBurst:
		return policy.Optionf("burst", "burst %d is out of range: use 1 to %d", p.Burst, maxBurst)
	case p.Queue < 0 || p.Queue > maxWaiting:
		return policy.Optionf("queue", "queue %d is out of range: use 1 to %d", p.Queue, maxWaiting)
	case p.MaxWait < 0 || p.MaxWait > caddy.Duration(maxMaxWait):
		return policy.Optionf("max_wait", "max_wait %v is out of range: use a time such as 30s, at most 24h", time.Duration(p.MaxWait))
	}
	return nil
}

// Validate calls Check, for Caddy.
func (p *Throttle) Validate() error { return p.Check() }

// Cleanup lets go of the lanes.
func (p *Throttle) Cleanup() error {
	var err error
	if p.holds {
		_, err = throttles.Delete(p.identity)
		p.holds = false
	}
	return errors.Join(err, p.RateKey.release())
}

const statusClientClosedRequest = 499 // as Caddy's reverse_proxy has it

// ServeHTTP passes a request on when its turn has come, or refuses it.
func (p *Throttle) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	lanes := p.lanes
	waiter, after, ok := lanes.enter(p.hash(r, lanes.hasher, &p.spaces), p.pace)
	if !ok {
		tellRetry(w.Header(), after)
		return p.RefuseWithJSON(w, r, http.StatusTooManyRequests, errThrottled)
	}
	if waiter != nil {
		select {
		case <-waiter.turn:
		case <-r.Context().Done():
			lanes.leave(waiter)
			return caddyhttp.Error(statusClientClosedRequest, r.Context().Err())
		}
	}
	return next.ServeHTTP(w, r)
}

var errThrottled = errors.New("no room to wait")

// Interface guards
var (
	_ caddy.Provisioner  = (*Throttle)(nil)
	_ caddy.Validator    = (*Throttle)(nil)
	_ caddy.CleanerUpper = (*Throttle)(nil)
	_ policy.Module      = (*Throttle)(nil)
)
