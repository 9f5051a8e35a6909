package circuitbreaker

import (
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// herald emits events one after the other, and lets no request wait for those who
// handle them.
type herald struct {
	ctx  caddy.Context
	app  *caddyevents.App // nil: there are no events
	mu   sync.Mutex
	news []func() // Guarded by mu.
}

func (h *herald) start(ctx caddy.Context) {
	h.ctx = ctx
	if app, err := ctx.AppIfConfigured("events"); err == nil { // always, in a server
		h.app = app.(*caddyevents.App)
	}
}

func (h *herald) emit(name string, data map[string]any) {
	if h.app == nil || !h.app.ShouldEmit(name) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.news = append(h.news, func() { h.app.Emit(h.ctx, name, data) })
	if len(h.news) == 1 {
		go h.run()
	}
}

// run ends when there are no news.
func (h *herald) run() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.news) > 0 {
		emit := h.news[0]
		h.mu.Unlock()
		emit()
		h.mu.Lock()
		h.news = h.news[1:]
	}
}

// tell makes a change of a breaker known: to the log, and as an event. Metrics look
// for themselves.
func (p *CircuitBreaker) tell(c *circuit, address string, change change) {
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
	p.herald.emit("rgate_circuit_breaker_"+change.to.String(), map[string]any{
		"gateway": c.gateway, "backend": c.label(), "upstream": address,
		"from": change.from.String(), "to": change.to.String(),
	})
}
