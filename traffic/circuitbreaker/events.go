package circuitbreaker

import (
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// eventEmitter emits events in order from a background goroutine, so that event handlers
// do not delay requests.
type eventEmitter struct {
	ctx   caddy.Context
	app   *caddyevents.App // nil without the events app
	mu    sync.Mutex
	queue []func() // Guarded by mu.
}

func (h *eventEmitter) start(ctx caddy.Context) {
	h.ctx = ctx
	if app, err := ctx.AppIfConfigured("events"); err == nil { // always configured in a server
		h.app = app.(*caddyevents.App)
	}
}

func (h *eventEmitter) emit(name string, data map[string]any) {
	if h.app == nil || !h.app.ShouldEmit(name) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.queue = append(h.queue, func() { h.app.Emit(h.ctx, name, data) })
	if len(h.queue) == 1 {
		go h.run()
	}
}

// run emits the queued events.
func (h *eventEmitter) run() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.queue) > 0 {
		emit := h.queue[0]
		h.mu.Unlock()
		emit()
		h.mu.Lock()
		h.queue = h.queue[1:]
	}
}

// report logs a transition of a breaker and emits an event.
func (p *CircuitBreaker) report(c *circuit, address string, change change) {
	if !change.happened() {
		return
	}
	level := zapcore.InfoLevel
	if change.to == circuitOpen {
		level = zapcore.WarnLevel
	}
	if entry := p.Logger().Check(level, "circuit breaker changed"); entry != nil {
		entry.Write(zap.String("gateway", c.gateway), zap.String("backend", c.label()), zap.String("upstream", address),
			zap.Stringer("from", change.from), zap.Stringer("to", change.to))
	}
	p.events.emit("rgate_circuit_breaker_"+change.to.String(), map[string]any{
		"gateway": c.gateway, "backend": c.label(), "upstream": address,
		"from": change.from.String(), "to": change.to.String(),
	})
}
