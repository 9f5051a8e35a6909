package dockerupstreams

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// watcher follows an engine and maintains a set for each subscribed selector. The
// process has one watcher per address. Sets are kept during outages.
type watcher struct {
	addr   address
	me     origin
	first  *zap.Logger
	open   func() (engine, error)
	hints  chan struct{} // signals that the containers may be outdated
	wakes  chan struct{} // signals that the selectors have changed
	cancel context.CancelFunc
	done   chan struct{}

	events, syncs, lists, reconnects atomic.Uint64

	stopped stopped

	mu          sync.Mutex // guards all below
	table       *table
	views       map[string]*view   // by key of the selector
	byLabel     map[label][]*view  // each view under one of its labels
	selected    map[string][]*view // the views that select a container, by container ID
	subscribers []*Subscription    // in order of subscription
	at          site
	kinds       map[string]networkKind // the networks by name; nil: unknown
	peer        peer
	owners      map[string]struct{} // containers whose network a selected container uses, by ID
	located     bool                // whether at was determined since the last complete list
	ownID       string              // the ID of the gateway's container
	synced      bool                // whether a complete list was received
	connected   bool
	apiVersion  string
	lastSync    time.Time // the last time the containers were in sync
	lastError   error

	restarted        bool          // whether the engine may have been restarted since the last list
	settling         chan struct{} // closed by the first list after an outage; nil: no requests wait
	settleUntil      time.Time     // the end of the time in which requests wait; zero: not begun
	distrust         *time.Timer   // removes the containers of an unreachable engine; nil: not started
	permissionLogged bool          // whether a missing permission was logged
}

// newWatcher starts a watcher of an engine. It uses logger until the first
// subscription.
func newWatcher(addr address, me origin, logger *zap.Logger, open func() (engine, error)) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{
		addr:   addr,
		me:     me,
		first:  logger,
		open:   open,
		hints:  make(chan struct{}, 1),
		wakes:  make(chan struct{}, 1),
		cancel: cancel,
		done:   make(chan struct{}),
		views:  make(map[string]*view),

		byLabel:  make(map[label][]*view),
		selected: make(map[string][]*view),
		ownID:    me.containerID,
		owners:   make(map[string]struct{}),
		at:       locate(me, nil, addr.remoteHost(), nil),
	}
	w.table = newTable(w.wanted)
	w.table.stop = addr.stop
	go w.run(ctx)
	return w
}

// Destruct stops the watcher and waits for its goroutines.
func (w *watcher) Destruct() error {
	w.cancel()
	<-w.done
	return nil
}

// steadyAfter is the minimum lifetime of a connection to reconnect without delay. Some
// proxies close every stream after a few minutes.
const steadyAfter = 5 * time.Second

// pollInterval is the time between two dials of a local socket that refuses connections.
// It is short because containers may be restarted with other addresses as soon as the
// engine runs again.
const pollInterval = 50 * time.Millisecond

// mostFlaps limits the backoff after short connections that received a complete list.
// An engine that rejects event streams is listed about once per second.
const mostFlaps = 4

// run connects to the engine, and reconnects after errors, until ctx is done.
func (w *watcher) run(ctx context.Context) {
	defer close(w.done)
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.stopDistrust()
		w.settle(false)
	}()
	var (
		failures int  // consecutive
		synced   bool // whether the last session received a complete list
		warned   bool // whether the failure was logged
		greeted  bool
	)
	for {
		begun, flapping := time.Now(), synced && failures > 0
		synced = false
		err := w.guard(func() error {
			return w.session(ctx, func() {
				w.greet(!greeted || (warned && !flapping))
				synced, greeted, warned = true, true, warned && flapping
			})
		})
		if ctx.Err() != nil {
			return
		}
		w.mark(err, synced)
		if synced && time.Since(begun) >= steadyAfter {
			failures, warned = 0, false
			w.logger().Debug("the stream of Docker events ended, reconnecting", zap.Stringer("endpoint", w.addr), zap.Error(err))
			continue
		}
		if synced {
			failures = min(failures, mostFlaps)
		}
		failures++
		if !warned && (!synced || failures >= 3) {
			warned = true
			w.warn(synced, err)
		}
		if !w.pause(ctx, begun, backoff(failures, rand.Float64()), isRefused(err)) {
			return
		}
	}
}

// warn logs a failure to reach or to follow the engine.
func (w *watcher) warn(synced bool, err error) {
	message := "cannot reach the Docker engine, keeping the known containers and retrying"
	if synced {
		message = "the stream of Docker events ends repeatedly, listing all containers after each reconnect"
	}
	fields := []zap.Field{zap.Stringer("endpoint", w.addr), zap.Error(err)}
	if w.me.contained && w.addr.isSocket() && isRefused(err) {
		fields = append(fields, zap.String("remedy", "if the engine runs, mount the folder of the socket instead of the socket: "+
			"an engine that is restarted creates another file"))
	}
	w.logger().Warn(message, fields...)
}

// guard runs session and converts a panic into an error, so that the gateway keeps the
// known containers. It logs panics of the session and of its goroutines.
func (w *watcher) guard(session func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = recovered(p)
		}
		if panicked := (*panicError)(nil); errors.As(err, &panicked) {
			w.logger().Error("panic in the connection to the Docker engine", zap.Stringer("endpoint", w.addr),
				zap.Error(err), zap.ByteString("stack", panicked.stack))
		}
	}()
	return session()
}

// panicError is a recovered panic. Its message excludes the stack trace, because the
// admin API serves it.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// recovered returns an error with the value and the stack trace of a panic.
func recovered(p any) error { return &panicError{value: p, stack: debug.Stack()} }

// pause waits until the next attempt is due, and reports whether it is. A hint shortens
// the wait to one second after the start of the last attempt. If connections were refused,
// the wait also ends as soon as a local socket accepts one.
func (w *watcher) pause(ctx context.Context, lastAttempt time.Time, wait time.Duration, refused bool) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var polls <-chan time.Time
	path, isUnix := strings.CutPrefix(w.addr.host, "unix://")
	if isUnix && refused {
		ticker := time.NewTicker(pollInterval)
		defer ticker.Stop()
		polls = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-polls:
			if conn, err := net.Dial("unix", path); err == nil {
				_ = conn.Close()
				return true
			}
		case <-w.hints:
			soonest := time.Until(lastAttempt.Add(time.Second))
			if soonest <= 0 {
				return true
			}
			if soonest < wait {
				wait = soonest
				timer.Reset(soonest)
			}
		}
	}
}

// greet logs the connection.
func (w *watcher) greet(loud bool) {
	w.mu.Lock()
	version, count := w.apiVersion, len(w.table.running)
	w.mu.Unlock()
	log := w.logger().Debug
	if loud {
		log = w.logger().Info
	}
	log("connected to the Docker engine", zap.Stringer("endpoint", w.addr),
		zap.String("api_version", version), zap.Int("containers", count))
}

// mark records the end of the connection. synced is whether it received a complete list.
func (w *watcher) mark(err error, synced bool) {
	w.reconnects.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.connected, w.lastError = false, err
	// An engine that responds neither with an error nor in time still runs.
	w.restarted = w.restarted || !synced && !errors.Is(err, errNoResponse)
	w.settle(false)
	if w.addr.trust > 0 && w.distrust == nil && w.synced {
		w.distrust = time.AfterFunc(w.addr.trust, w.dropAll)
	}
}

// The time limits of settle: for requests to wait during an outage, and for the engine to
// respond to the first ping, unless it is starting.
const (
	settleLimit = 30 * time.Second
	promptPing  = 100 * time.Millisecond
)

// settle makes requests wait for the containers if wait is true, and ends the wait
// otherwise. Guarded by mu.
func (w *watcher) settle(wait bool) {
	settled := w.settling
	if wait == (settled != nil) {
		return
	}
	w.settling = nil
	if wait {
		w.settling = make(chan struct{})
	}
	for _, v := range w.views {
		v.settling = w.settling
		v.publish(w.synced)
	}
	if settled != nil {
		close(settled) // after publish, so that requests use the new sets
	}
}

// accepted records that the engine has accepted a connection. Until the engine has listed
// its containers, requests wait, unless it was reachable all the time or has hung. An
// engine accepts connections before it responds, and restarts its containers in between.
func (w *watcher) accepted() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.connected || !w.synced || !w.restarted && errors.Is(w.lastError, errNoResponse) {
		return
	}
	if w.settleUntil.IsZero() {
		w.settleUntil = now.Add(settleLimit)
	}
	if now.Before(w.settleUntil) {
		w.settle(true)
	}
}

// responded records the response to the first ping of a connection. An engine that was
// reachable all the time responds immediately. The socket of an engine may also be open
// while it is restarted, such as with socket activation.
func (w *watcher) responded(took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if took >= promptPing {
		w.restarted = true
	}
	if !w.restarted {
		w.settle(false)
	}
}

// progress returns whether the engine has listed its containers, and whether the last
// attempt to connect failed.
func (w *watcher) progress() (synced, failed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.synced, !w.connected && w.lastError != nil
}

// dropAll removes all containers of an engine that has been unreachable for too long.
func (w *watcher) dropAll() {
	w.mu.Lock()
	drop := w.distrust != nil && !w.connected
	if drop {
		w.table.forget()
		w.updateViews()
	}
	w.mu.Unlock()
	if drop {
		w.logger().Warn("the Docker engine has been unreachable for too long, its containers receive no requests until it responds",
			zap.Stringer("endpoint", w.addr), zap.Duration("trust", w.addr.trust))
	}
}

// stopDistrust stops the timer of dropAll. Guarded by mu.
func (w *watcher) stopDistrust() {
	if w.distrust != nil {
		w.distrust.Stop()
		w.distrust = nil
	}
}

// logger returns the logger of the newest subscription: loggers of older configurations
// may be closed.
func (w *watcher) logger() *zap.Logger {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.subscribers); n > 0 {
		return w.subscribers[n-1].logger
	}
	return w.first
}

// notify sends to a channel with a buffer of one, unless it is full.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
