package dockerupstreams

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// script is an in-memory engine for tests with a fake clock (testing/synctest).
type script struct {
	mu      sync.Mutex
	running []*container
	asked   [][]string // the IDs of each list; nil: all
	pings   []time.Time
	events  chan []event
	errs    chan error
	pingErr error
	listErr error
	panicky bool
	hanging bool

	inspected  []string // the IDs of the requests for stop signals
	signal     Signal
	inspectErr error

	badVersion bool
	attempts   []time.Time
}

func (s *script) ping(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pings = append(s.pings, time.Now())
	if s.hanging {
		s.mu.Unlock()
		<-ctx.Done()
		s.mu.Lock()
		return ctx.Err()
	}
	return s.pingErr
}

func (s *script) subscribe(context.Context, time.Time) (<-chan []event, <-chan error) {
	return s.events, s.errs
}

func (s *script) list(_ context.Context, ids []string) ([]*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, ids)
	if s.panicky {
		panic("a bug")
	}
	var list []*container
	for _, c := range s.running {
		if ids == nil || slices.Contains(ids, c.id) {
			fresh := *c
			list = append(list, &fresh)
		}
	}
	return list, s.listErr
}

func (s *script) version() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.badVersion {
		panic("a bug")
	}
	return "1.51"
}

func (s *script) listStopped(context.Context) ([]*container, error) { return nil, nil }

func (s *script) networks(context.Context) (map[string]networkKind, error) { return nil, nil }

func (s *script) stopSignal(_ context.Context, id string) (Signal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inspected = append(s.inspected, id)
	return s.signal, s.inspectErr
}

func (s *script) peer() peer { return peer{} }

func (s *script) close() {}

func (s *script) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// lists returns the number of requested lists.
func (s *script) lists() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// emit sends an event about the only container and waits until all goroutines are idle.
func (s *script) emit(what action, signal Signal) {
	s.events <- []event{{id: running(nil).id, action: what, signal: signal, at: time.Now()}}
	synctest.Wait()
}

// inABubble runs a test in a synctest bubble, with a watcher of a scripted engine.
func inABubble(t *testing.T, me origin, test func(t *testing.T, s *script, sub *Subscription, logs *observer.ObservedLogs)) {
	t.Helper()
	inABubbleWith(t, me, address{host: "unix:///nowhere"}, test)
}

func inABubbleWith(t *testing.T, me origin, addr address, test func(t *testing.T, s *script, sub *Subscription, logs *observer.ObservedLogs)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &script{running: []*container{running(nil)}, events: make(chan []event), errs: make(chan error)}
		core, logs := observer.New(zapcore.DebugLevel)
		logger := zap.New(core)
		w := newWatcher(addr, me, logger, func() (engine, error) {
			s.set(func() { s.attempts = append(s.attempts, time.Now()) })
			return s, nil
		})
		sel := Selector{MatchLabels: map[string]string{"app": "web"}}
		sub := &Subscription{sel: sel, key: sel.key(), logger: logger}
		sub.parts = []part{{watcher: w, view: w.subscribe(sub)}}
		synctest.Wait()
		test(t, s, sub, logs)
		_ = w.Destruct()
	})
}

func TestDrainEndsIfTheContainerLivesOn(t *testing.T) {
	inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, _ *observer.ObservedLogs) {
		s.emit(actionKill, 15)
		if len(sub.Set().Targets) != 0 {
			t.Fatal("a container that is being stopped is still a target")
		}
		time.Sleep(drainFor - time.Second)
		s.emit(actionOther, 0) // a list that shows it running does not end the drain
		if len(sub.Set().Targets) != 0 {
			t.Fatal("the drain ended before its time")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(sub.Set().Targets) != 1 {
			t.Fatal("the drain did not end with its time")
		}
		if last := s.asked[len(s.asked)-1]; !slices.Equal(last, []string{running(nil).id}) {
			t.Errorf("the last list was of %v, want the container alone", last)
		}
	})
}

func TestSignalsThatReloadDoNotDrain(t *testing.T) {
	inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, _ *observer.ObservedLogs) {
		for _, signal := range []Signal{1, 10, 12, 28} {
			s.emit(actionKill, signal)
			if len(sub.Set().Targets) != 1 {
				t.Errorf("signal %d drained the container", signal)
			}
		}
		for _, signal := range []Signal{0, 2, 3, 6, 9, 15, 37} {
			s.emit(actionKill, signal)
			if len(sub.Set().Targets) != 0 {
				t.Errorf("signal %d did not drain the container", signal)
			}
			s.emit(actionStart, 0)
			if len(sub.Set().Targets) != 1 {
				t.Errorf("after signal %d, a start did not end the drain", signal)
			}
		}
	})
}

func TestDeadConnectionIsFound(t *testing.T) {
	inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, logs *observer.ObservedLogs) {
		time.Sleep(heartbeat + time.Second)
		synctest.Wait()
		if len(s.pings) != 2 {
			t.Fatalf("pinged %d times, want once at the start and once after a quiet time", len(s.pings))
		}
		s.set(func() { s.hanging = true })
		time.Sleep(heartbeat + pingTimeout + time.Second)
		synctest.Wait()
		if sub.parts[0].watcher.status().Connected {
			t.Error("still connected to an engine that does not respond")
		}
		if len(sub.Set().Targets) != 1 {
			t.Error("the last set did not survive")
		}
		s.set(func() { s.hanging = false })
		time.Sleep(time.Minute)
		synctest.Wait()
		if !sub.parts[0].watcher.status().Connected {
			t.Error("not connected again")
		}
		if n := logs.FilterLevelExact(zapcore.WarnLevel).Len(); n != 1 {
			t.Errorf("warned %d times, want once", n)
		}
	})
}

func TestBackoffIsEndlessAndCapped(t *testing.T) {
	inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, logs *observer.ObservedLogs) {
		s.set(func() { s.pingErr, s.attempts = errors.New("connection refused"), nil })
		time.Sleep(steadyAfter)
		s.errs <- errors.New("cut")
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		s.set(func() {
			if n := len(s.attempts); n < 24*360 || n > 24*720+10 {
				t.Errorf("%d attempts in a day, want one in 5 to 10 seconds", n)
			}
			if first := s.attempts[1].Sub(s.attempts[0]); first > 100*time.Millisecond {
				t.Errorf("the second attempt came after %s, want 100 ms at most", first)
			}
			s.pingErr = nil
		})
		if n := logs.FilterLevelExact(zapcore.WarnLevel).Len(); n != 1 {
			t.Errorf("warned %d times, want once", n)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !sub.parts[0].watcher.status().Connected {
			t.Error("not connected again")
		}
	})
}

// Some proxies close streams every ten minutes. This is not an outage.
func TestLongStreamsAreRenewedAtOnceAndQuietly(t *testing.T) {
	inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, logs *observer.ObservedLogs) {
		for range 3 {
			time.Sleep(10 * time.Minute)
			s.errs <- errors.New("unexpected EOF")
			synctest.Wait()
			if !sub.parts[0].watcher.status().Connected {
				t.Error("not connected again immediately")
			}
		}
		if n := logs.FilterLevelExact(zapcore.WarnLevel).Len(); n != 0 {
			t.Errorf("warned %d times, want never", n)
		}
		if n := logs.FilterLevelExact(zapcore.InfoLevel).Len(); n != 1 {
			t.Errorf("greeted %d times, want once", n)
		}
	})
}

func TestHintsAreCoalescedAndLimited(t *testing.T) {
	inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, _ *observer.ObservedLogs) {
		time.Sleep(hintGap)
		before := s.lists()
		for range 10_000 {
			sub.Refresh()
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if n := s.lists() - before; n < 9 || n > 11 {
			t.Errorf("%d lists in ten seconds of hints, want one per second", n)
		}
	})
}

// A hint causes an attempt before the end of the backoff.
func TestHintsShortenTheBackoff(t *testing.T) {
	inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, _ *observer.ObservedLogs) {
		s.set(func() { s.pingErr = errors.New("connection refused") })
		s.errs <- errors.New("cut")
		time.Sleep(time.Hour)
		s.set(func() { s.pingErr, s.attempts = nil, nil })
		sub.Refresh()
		time.Sleep(time.Second)
		synctest.Wait()
		if !sub.parts[0].watcher.status().Connected {
			t.Error("not connected a second after a hint")
		}
	})
}

func TestPanicsAreSurvived(t *testing.T) {
	inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, logs *observer.ObservedLogs) {
		s.set(func() { s.panicky = true })
		s.emit(actionOther, 0)
		time.Sleep(time.Minute)
		synctest.Wait()
		status := sub.parts[0].watcher.status()
		if status.Connected || status.Error != "panic: a bug" {
			t.Errorf("status is %+v, want the panic as the error", status)
		}
		if len(sub.Set().Targets) != 1 {
			t.Error("the last set did not survive")
		}
		s.set(func() { s.panicky = false })
		time.Sleep(time.Minute)
		synctest.Wait()
		if !sub.parts[0].watcher.status().Connected {
			t.Error("not connected again")
		}
	})
}

// A panic in the goroutine of the session, while it holds the lock.
func TestPanicInTheSessionIsSurvived(t *testing.T) {
	inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, logs *observer.ObservedLogs) {
		s.set(func() { s.badVersion = true })
		time.Sleep(hintGap)
		sub.Refresh()
		synctest.Wait()
		if n := logs.FilterMessage("panic in the connection to the Docker engine").FilterFieldKey("stack").Len(); n != 1 {
			t.Errorf("logged the panic with its stack %d times, want once", n)
		}
		s.set(func() { s.badVersion = false })
		time.Sleep(time.Minute)
		synctest.Wait()
		if status := sub.parts[0].watcher.status(); !status.Connected || len(sub.Set().Targets) != 1 {
			t.Errorf("status is %+v, want connected, with one target", status)
		}
	})
}

// The networks of the gateway's container determine the addresses of other containers,
// also after a change.
func TestOwnContainerDecides(t *testing.T) {
	for _, id := range []string{someID, someID[:12]} {
		inABubble(t, origin{containerID: id, contained: true}, func(t *testing.T, s *script, sub *Subscription, _ *observer.ObservedLogs) {
			own := &container{id: someID, name: "gateway", state: "running", networks: []network{{name: "zoo", gateway: "10.9.0.1"}}}
			s.set(func() {
				both := running(nil)
				both.networks = []network{{name: "back", ipv4: "10.8.0.2"}, {name: "zoo", ipv4: "10.9.0.2"}}
				s.running = []*container{both, own}
			})
			time.Sleep(hintGap)
			sub.Refresh()
			synctest.Wait()
			if dial := sub.Set().Targets[0].Dial; dial != "10.9.0.2:80" {
				t.Errorf("dials %s, want the address in the shared network", dial)
			}
			s.set(func() { own.networks = []network{{name: "back", gateway: "10.8.0.1"}} })
			s.events <- []event{{id: someID, action: actionNetwork, at: time.Now()}}
			synctest.Wait()
			if dial := sub.Set().Targets[0].Dial; dial != "10.8.0.2:80" {
				t.Errorf("dials %s, want the address in the network that is shared now", dial)
			}
		})
	}
}

// Unselected containers are not listed until a selector matches them.
func TestUnrelatedContainersCostNothing(t *testing.T) {
	inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, _ *observer.ObservedLogs) {
		other := &container{
			id: otherID, name: "db-1", state: "running", labels: map[string]string{"app": "db"}, health: healthStarting,
			networks: []network{{name: "bridge", ipv4: "10.0.0.3"}}, ports: []port{{private: 5432}},
		}
		s.set(func() { s.running = append(s.running, other) })
		s.events <- []event{{id: otherID, action: actionStart, at: time.Now()}}
		synctest.Wait()
		before := s.lists()
		s.set(func() { other.health = healthPassing })
		for range 1000 {
			s.events <- []event{{id: otherID, action: actionOther, at: time.Now()}}
		}
		synctest.Wait()
		if n := s.lists() - before; n != 0 {
			t.Errorf("%d lists because of an unselected container", n)
		}

		sel := Selector{MatchLabels: map[string]string{"app": "db"}}
		second := &Subscription{sel: sel, key: sel.key(), logger: zap.NewNop()}
		w := sub.parts[0].watcher
		second.parts = []part{{watcher: w, view: w.subscribe(second)}}
		if set := second.Set(); !set.Synced || len(set.Rejected)+len(set.Targets) != 1 {
			t.Errorf("the new set is %+v, want the known state immediately", set)
		}
		synctest.Wait()
		if set := second.Set(); len(set.Targets) != 1 {
			t.Errorf("the new set is %+v, want the container, which is healthy now", set)
		}
	})
}

// Many events cause few lists, and the final state is always published.
func TestListsAreBoundedUnderLoad(t *testing.T) {
	inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, _ *observer.ObservedLogs) {
		before := s.lists()
		for range 10_000 {
			s.events <- []event{{id: running(nil).id, action: actionOther, at: time.Now()}}
			time.Sleep(time.Millisecond)
		}
		s.set(func() { s.running[0].health = healthFailing })
		s.emit(actionOther, 0)
		if n := s.lists() - before; n > 40+10*20+2 {
			t.Errorf("%d lists in ten seconds, want 20 per second after the first 40", n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(sub.Set().Targets) != 0 {
			t.Error("the last event did not get through")
		}
	})
}

func TestBackoff(t *testing.T) {
	for failures, want := range map[int]time.Duration{
		0: 100 * time.Millisecond, 1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 7: 6400 * time.Millisecond,
		8: 10 * time.Second, 1_000_000: 10 * time.Second,
	} {
		if least, most := backoff(failures, 0), backoff(failures, 1); least != want/2 || most != want {
			t.Errorf("after %d failures: %s to %s, want %s to %s", failures, least, most, want/2, want)
		}
	}
}

// Lists that contradict an event take precedence after eventTrust.
func TestEventsAreNotBelievedForEver(t *testing.T) {
	inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, _ *observer.ObservedLogs) {
		s.emit(actionEnd, 0) // the container runs: its start event was lost
		time.Sleep(hintGap)
		sub.Refresh()
		synctest.Wait()
		if len(sub.Set().Targets) != 0 {
			t.Error("a list was believed against an event of a second ago")
		}
		time.Sleep(eventTrust)
		synctest.Wait()
		if len(sub.Set().Targets) != 1 {
			t.Error("a list was not believed against an old event")
		}
		w := sub.parts[0].watcher
		w.mu.Lock()
		facts := len(w.table.facts) + len(w.table.pendingChecks.items)
		w.mu.Unlock()
		if facts != 0 {
			t.Errorf("%d facts are left", facts)
		}
	})
}
