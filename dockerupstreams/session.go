package dockerupstreams

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http/httptrace"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// The maximum time of a request. Listing 10,000 containers takes several seconds on
	// some engines.
	pingTimeout    = 10 * time.Second
	listTimeout    = time.Minute
	inspectTimeout = 5 * time.Second

	// The time without data after which the engine is pinged, to detect a dead
	// connection.
	heartbeat = 30 * time.Second

	// The minimum time between two lists caused by hints.
	hintGap = time.Second
)

// session is a connection to an engine, from the first ping to the first error. One
// goroutine runs it. Requests run one at a time in a second goroutine, so that events
// are applied during a slow list.
type session struct {
	w       *watcher
	eng     engine
	events  <-chan []event
	errs    <-chan error
	up      func()
	results chan result
	asking  bool  // whether a request is in flight, except for stop signals
	listed  bool  // whether the first list was received
	ended   error // the error of the stream, if it ended before the first list

	inspecting   bool // whether a request for stop signals is in flight
	uninspecting bool // whether the engine rejects requests for stop signals

	wantAll   bool      // whether to list all containers
	allFrom   time.Time // the earliest time of that list
	lists     limiter   // limits lists of some containers
	publishes limiter
	askFrom   time.Time // the earliest time of the next request
	publishAt time.Time // the earliest time of the next publish
	heardFrom time.Time // the time of the last data from the engine
}

type request uint8

const (
	requestAll request = iota
	requestSome
	requestPing
	requestStopSignals // concurrent with another request, because it may be slow
)

// mostInspected is the maximum number of containers in a request for stop signals.
const mostInspected = 64

type result struct {
	request request
	ids     []string
	list    []*container
	kinds   map[string]networkKind // of requestAll; nil: refused
	signals map[string]Signal      // of requestStopSignals
	took    time.Duration
	minor   error // the error of an optional request
	err     error
}

// errNoResponse is the error of an engine that accepts connections but does not respond.
var errNoResponse = errors.New("no response within the timeout")

// refusedError is the error of a connection that was not accepted.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

func isRefused(err error) bool {
	refused := (*refusedError)(nil)
	return errors.As(err, &refused)
}

// session connects to the engine and follows its events until an error. It calls up
// after the first complete list. It subscribes to events before it requests the list,
// so that it misses no change.
func (w *watcher) session(ctx context.Context, up func()) error {
	ctx, cancel := context.WithCancel(ctx)
	eng, err := w.open()
	if err != nil {
		cancel()
		return fmt.Errorf("preparing the connection: %w", err)
	}
	s := &session{
		w: w, eng: eng, up: up, results: make(chan result, 2),
		wantAll: true, heardFrom: time.Now(), lists: newListLimiter(), publishes: newPublishLimiter(),
	}
	defer func() {
		cancel()
		for s.asking || s.inspecting {
			s.done(<-s.results)
		}
		eng.close()
	}()
	if err := s.greet(ctx); err != nil {
		return err
	}
	// Subscribe from a time in the past. Engines may respond before the subscription is
	// active, and the kill events of containers that still drain must be replayed. The
	// start is one drain ago, plus a second, because engines get whole seconds, rounded
	// down. At least two seconds keep the start in the past if the drain is short.
	begun := w.connect()
	s.events, s.errs = eng.subscribe(ctx, begun.Add(time.Second-max(w.addr.stop.drain.Or(drainFor), 2*time.Second)))
	return s.loop(ctx)
}

// greet sends the first ping of a connection.
func (s *session) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	var accepted, refused atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{ConnectDone: func(_, _ string, err error) {
		switch {
		case err != nil:
			refused.Store(true)
		case ctx.Err() == nil && !accepted.Swap(true):
			s.w.accepted()
		}
	}})
	begun := time.Now()
	err := s.eng.ping(traced)
	switch {
	case err == nil:
		s.w.responded(time.Since(begun))
	case accepted.Load():
		err = timeoutOf(ctx, err)
	case refused.Load():
		err = &refusedError{err}
	}
	return err
}

// timeoutOf returns errNoResponse if ctx has expired, else err.
func timeoutOf(ctx context.Context, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("pinging the engine: %w", errNoResponse)
	}
	return err
}

func (s *session) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(s.step(ctx, time.Now())))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-s.errs:
			if s.listed {
				return err
			}
			s.ended, s.errs = err, nil // return the error after the first list, which is still useful
		case group := <-s.events:
			s.heardFrom = time.Now()
			s.w.hear(group, s.heardFrom)
		case r := <-s.results:
			s.done(r)
			if err := s.take(r); err != nil || s.ended != nil {
				return errors.Join(err, s.ended)
			}
		case <-s.w.hints:
			s.wantAll = true
		case <-s.w.wakes:
		case <-timer.C:
		}
	}
}

// step runs the actions that are due and returns the time of the next step.
func (s *session) step(ctx context.Context, now time.Time) time.Time {
	asks, next, news := s.plan(now)
	s.w.logRejections(news)
	for _, ask := range asks {
		s.send(ctx, ask)
	}
	return next
}

// done records that a request is no longer in flight.
func (s *session) done(r result) {
	if r.request == requestStopSignals {
		s.inspecting = false
	} else {
		s.asking = false
	}
}

// plan publishes changes if due, and returns the requests to send and the time of the
// next step.
func (s *session) plan(now time.Time) (asks []result, next time.Time, news map[*view][]Rejection) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	next = sooner(now.Add(heartbeat), s.w.table.expire(now))
	if len(s.w.table.touched) > 0 && !s.w.table.connecting {
		if s.publishAt.After(now) {
			next = sooner(next, s.publishAt)
		} else {
			news = s.publish()
		}
	}
	if !s.asking {
		ask, due := s.ask(now)
		if ask == nil {
			next = sooner(next, due)
		} else {
			s.asking = true
			asks = append(asks, *ask)
		}
	}
	if unknown := s.w.table.uninspected; s.listed && !s.inspecting && !s.uninspecting && len(unknown) > 0 {
		s.inspecting = true
		ids := slices.Collect(maps.Keys(unknown))
		asks = append(asks, result{request: requestStopSignals, ids: ids[:min(len(ids), mostInspected)]})
	}
	return asks, next, news
}

// publish updates the views. The next update follows after 50 times the duration of this
// one, but after 100 ms at most unless the limiter delays it.
func (s *session) publish() map[*view][]Rejection {
	begun := time.Now()
	news := s.w.updateViews()
	now := time.Now()
	s.publishes.take(now)
	s.publishAt = later(s.publishes.next(now), now.Add(min(50*now.Sub(begun), 100*time.Millisecond)))
	return news
}

// ask returns the request that is due, or the time of the next request. Guarded by the
// watcher's mu.
func (s *session) ask(now time.Time) (*result, time.Time) {
	t := s.w.table
	due := later(s.heardFrom.Add(heartbeat), s.askFrom)
	if s.wantAll {
		all := later(s.allFrom, s.askFrom)
		if !all.After(now) {
			s.wantAll = false
			t.begin()
			return &result{request: requestAll}, now
		}
		due = sooner(due, all)
	}
	if len(t.dirty) > 0 {
		some := later(s.lists.next(now), s.askFrom)
		if !some.After(now) {
			s.lists.take(now)
			ids := slices.Sorted(maps.Keys(t.dirty))
			t.begin()
			clear(t.dirty)
			return &result{request: requestSome, ids: ids}, now
		}
		due = sooner(due, some)
	}
	if !due.After(now) {
		return &result{request: requestPing}, now
	}
	return nil, due
}

// send runs a request in a new goroutine.
func (s *session) send(ctx context.Context, r result) {
	go func() {
		begun := time.Now()
		defer func() {
			if p := recover(); p != nil {
				r.err = recovered(p)
			}
			r.took = time.Since(begun)
			s.results <- r
		}()
		timeout := listTimeout
		if r.request == requestPing {
			timeout = pingTimeout
		}
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		switch r.request {
		case requestPing:
			r.err = timeoutOf(ctx, s.eng.ping(ctx))
		case requestStopSignals:
			s.inspect(ctx, &r)
		case requestAll:
			if r.list, r.err = s.eng.list(ctx, nil); r.err == nil {
				limited, cancel := context.WithTimeout(ctx, inspectTimeout)
				r.kinds, r.minor = s.eng.networks(limited)
				cancel()
			}
		case requestSome:
			r.list, r.err = s.eng.list(ctx, r.ids)
		}
	}()
}

// inspect requests the stop signals of containers, until a request is rejected or too
// slow. It removes the IDs of the others from the result.
func (s *session) inspect(ctx context.Context, r *result) {
	r.signals = make(map[string]Signal, len(r.ids))
	for i, id := range r.ids {
		limited, cancel := context.WithTimeout(ctx, inspectTimeout)
		signal, err := s.eng.stopSignal(limited, id)
		cancel()
		if rejected := (*rejectedError)(nil); errors.As(err, &rejected) {
			r.minor, r.ids = err, nil
			return
		}
		if err == nil {
			r.signals[id] = signal
		} else if errors.Is(err, context.DeadlineExceeded) {
			r.ids = r.ids[:i+1]
			return
		}
	}
}

// take processes the result of a request.
func (s *session) take(r result) error {
	if r.err != nil {
		return r.err
	}
	switch {
	case r.minor != nil && r.request == requestStopSignals:
		s.uninspecting = true
		s.w.logMissingPermission(r.minor)
	case r.minor != nil:
		s.w.logger().Debug("cannot list the networks of the Docker engine", zap.Stringer("endpoint", s.w.addr), zap.Error(r.minor))
	}
	news, restored := s.record(r, time.Now())
	s.w.logRejections(news)
	for _, c := range restored {
		s.w.logger().Warn("the container still runs after a signal that stops it, and receives requests again",
			zap.String("container", c.name), zap.String("id", c.id), zap.Duration("drain", s.w.addr.stop.drain.Or(drainFor)),
			zap.Stringer("endpoint", s.w.addr))
	}
	if !s.listed {
		s.listed = true
		s.up()
	}
	return nil
}

// record applies a response to the table. Complete lists are published immediately. It
// returns the selected containers whose drain has ended although they still run.
func (s *session) record(r result, now time.Time) (news map[*view][]Rejection, restored []*container) {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	switch r.request {
	case requestStopSignals:
		for _, id := range r.ids {
			delete(w.table.uninspected, id) // after an error, until the container is listed again
		}
		for id, signal := range r.signals {
			w.table.inspected(id, signal, now)
		}
		return nil, nil
	case requestAll:
		w.syncs.Add(1)
		w.table.replaceAll(r.list, now)
		w.synced, w.connected, w.lastError, w.located = true, true, nil, false
		w.apiVersion, w.kinds, w.peer = s.eng.version(), r.kinds, s.eng.peer()
		news = s.publish()
		w.restarted, w.settleUntil = false, time.Time{}
		w.settle(false)
		w.stopDistrust()
		s.allFrom = now.Add(max(hintGap, 20*r.took))
	case requestSome:
		w.lists.Add(1)
		w.table.replace(r.ids, r.list, now)
		s.wantAll = s.wantAll || w.newNetworks(r.list)
	}
	w.lastSync, s.heardFrom = now, now
	if r.took > 20*time.Millisecond {
		s.askFrom = now.Add(min(r.took, time.Second)) // do not overload a slow engine
	}
	unselected := func(c *container) bool { return len(w.viewsOf(c)) == 0 }
	restored = slices.DeleteFunc(w.table.restored, unselected)
	w.table.restored = nil
	return news, restored
}

// logMissingPermission logs once that the stop signals of containers cannot be requested.
func (w *watcher) logMissingPermission(err error) {
	w.mu.Lock()
	logged := w.permissionLogged
	w.permissionLogged = true
	w.mu.Unlock()
	if !logged {
		w.logger().Info("cannot read the stop signals of containers, which are only drained at usual signals: "+
			"let the socket proxy pass GET on /containers/{id}/json, or set the option stop_signals or the label "+labelStopSignals,
			zap.Stringer("endpoint", w.addr), zap.Error(err))
	}
}

// connect records the start of a session and returns its time.
func (w *watcher) connect() time.Time {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.table.connect(now)
	return now
}

// hear applies events to the table.
func (w *watcher) hear(group []event, now time.Time) {
	w.events.Add(uint64(len(group)))
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range group {
		w.table.apply(e, now)
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
