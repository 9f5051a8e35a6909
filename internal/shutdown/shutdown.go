// Package shutdown runs functions when the process begins to shut down, before Caddy
// waits for the requests in flight.
package shutdown

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// SharedNetwork is the name of the network whose sockets stay open across reloads. Caddy
// does not count the listeners of registered networks.
const SharedNetwork = "rgate"

var (
	mu        sync.Mutex
	functions []func() // Guarded by mu.
)

// OnBegin registers a function for the process. It runs when the process begins to shut
// down, and must not block.
func OnBegin(f func()) {
	mu.Lock()
	defer mu.Unlock()
	functions = append(functions, f)
}

// Watch prepares the configuration that is being provisioned for its end. When the
// process shuts down, it runs the functions of OnBegin, and a second SIGTERM or SIGINT
// ends the process immediately. Call it once for each server.
func Watch(ctx caddy.Context) error {
	events, err := ctx.App("events")
	if err != nil {
		return err
	}
	stopping := stoppingHandler{}
	for _, module := range ctx.Modules() {
		if app, ok := module.(*caddyhttp.App); ok {
			stopping.app = app
		}
	}
	return events.(*caddyevents.App).On("stopping", stopping)
}

// stoppingHandler handles the event that a configuration is about to stop, in a reload or
// at the end of the process.
type stoppingHandler struct{ app *caddyhttp.App }

// Handle implements caddyevents.Handler.
func (h stoppingHandler) Handle(context.Context, caddy.Event) error {
	if caddy.Exiting() {
		begin()
	} else if h.app != nil && sharesListeners(h.app) {
		// Caddy would delay the reload, because it does not know that the sockets stay open.
		h.app.ShutdownDelay = 0
	}
	return nil
}

func sharesListeners(app *caddyhttp.App) bool {
	for _, server := range app.Servers {
		for _, address := range server.Listen {
			if strings.HasPrefix(address, SharedNetwork+"/") {
				return true
			}
		}
	}
	return false
}

// begin runs the registered functions once.
var begin = sync.OnceFunc(func() {
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	go quitOn(again)
	mu.Lock()
	defer mu.Unlock()
	for _, f := range functions {
		f()
	}
})

// quitOn ends the process at the next signal. Caddy ignores a second SIGTERM.
func quitOn(again <-chan os.Signal) {
	caddy.Log().Warn("second signal received: the process ends without waiting for requests in flight",
		zap.Stringer("signal", <-again))
	os.Exit(caddy.ExitCodeForceQuit)
}

// Interface guard
var _ caddyevents.Handler = stoppingHandler{}
