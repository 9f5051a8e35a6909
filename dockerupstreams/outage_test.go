package dockerupstreams

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rgate/rgate/dockerupstreams/dockertest"
	"github.com/rgate/rgate/internal/testkit"
)

// After an outage, the containers may have other addresses. Requests wait for the first
// list.
func TestRequestsWaitForTheFirstListAfterAnOutage(t *testing.T) {
	e := dockertest.New(t)
	id := e.Run(web("a"))
	s, _ := follow(t, Selector{}, e)
	before := expect(t, s, "a").Targets[0].Dial
	testkit.Eventually(t, "the event of the start was received", func() bool { return s.parts[0].watcher.lists.Load() == 1 })

	e.Stop()
	testkit.Eventually(t, "the outage is known", func() bool { return s.parts[0].watcher.status().Error != "" })
	if set := s.Settled(t.Context()); set.settling != nil || len(set.Targets) != 1 {
		t.Errorf("while the engine refuses connections: %+v, want the known container without a wait", set)
	}
	hold := make(chan struct{})
	e.Fail(dockertest.Faults{PingHold: hold})
	e.Mute(true)
	e.Start(t)
	testkit.Eventually(t, "the engine has accepted a connection", func() bool { return e.Counts().HeldPings > 0 })
	e.Change(id, "start", func(c *dockertest.Container) {
		c.Networks = map[string]dockertest.Network{"bridge": {IPAddress: "172.17.0.9"}}
	})

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if got := s.Settled(canceled).Targets[0].Dial; got != before {
		t.Errorf("a canceled request uses %s, want %s", got, before)
	}
	begun := time.Now()
	if got := s.Settled(t.Context()).Targets[0].Dial; got != before || time.Since(begun) < settleTime {
		t.Errorf("after %s, a request uses %s, want %s after a second", time.Since(begun), got, before)
	}
	got := make(chan string)
	go func() { got <- s.Settled(t.Context()).Targets[0].Dial }()
	close(hold)
	if dial := <-got; dial != "172.17.0.9:80" {
		t.Errorf("after the list, the request uses %s, want the new address", dial)
	}
	if s.Set().settling != nil {
		t.Error("requests still wait")
	}

	// A subscription that was closed during a wait keeps its last set.
	s.parts[0].watcher.mu.Lock()
	s.parts[0].watcher.settle(true)
	s.parts[0].watcher.mu.Unlock()
	begun = time.Now()
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		s.Settled(t.Context())
	}()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-waited
	if s.Settled(t.Context()); time.Since(begun) >= settleTime {
		t.Errorf("requests waited for %s after the subscription was closed", time.Since(begun))
	}
}

// An engine that was reachable all the time responds immediately. Requests do not wait
// for a slow list.
func TestRequestsDoNotWaitAfterACutStream(t *testing.T) {
	for name, took := range map[string]time.Duration{"reachable": 0, "restarted": promptPing} {
		inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, _ *observer.ObservedLogs) {
			w := sub.parts[0].watcher
			time.Sleep(steadyAfter)
			s.set(func() { s.hanging = true }) // the first ping of the next connection does not return yet
			s.errs <- errors.New("cut")
			synctest.Wait()
			w.accepted() // called by the transport of a real engine
			w.responded(took)
			begun := time.Now()
			sub.Settled(t.Context())
			if waited := time.Since(begun) > 0; waited != (took >= promptPing) {
				t.Errorf("%s: the request waited: %v", name, waited)
			}
		})
	}
}

func TestWaitOfRequestsIsLimited(t *testing.T) {
	inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, _ *observer.ObservedLogs) {
		w := sub.parts[0].watcher
		s.set(func() { s.hanging = true })
		s.errs <- errors.New("cut")
		synctest.Wait()
		w.accepted() // called by the transport of a real engine
		waits := func() bool {
			begun := time.Now()
			sub.Settled(t.Context())
			return time.Since(begun) > 0
		}
		if !waits() {
			t.Error("the request did not wait")
		}
		time.Sleep(pingTimeout)
		synctest.Wait()
		if waits() {
			t.Error("a request waits although the attempt has failed")
		}
		time.Sleep(settleLimit)
		w.accepted()
		if waits() {
			t.Error("a request waits although the engine has not responded for long")
		}
	})
}

func TestUntrustedContainersAreRemoved(t *testing.T) {
	addr := address{host: "unix:///nowhere", trust: 5 * time.Minute}
	inABubbleWith(t, origin{}, addr, func(t *testing.T, s *script, sub *Subscription, logs *observer.ObservedLogs) {
		s.set(func() { s.pingErr = errors.New("connection refused") })
		s.errs <- errors.New("cut")
		time.Sleep(5*time.Minute - time.Second)
		synctest.Wait()
		if len(sub.Set().Targets) != 1 {
			t.Error("the container was removed too early")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(sub.Set().Targets) != 0 || logs.FilterMessageSnippet("unreachable for too long").Len() != 1 {
			t.Error("the container was not removed")
		}
		s.set(func() { s.pingErr = nil })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(sub.Set().Targets) != 1 {
			t.Error("the container is missing after the engine has responded")
		}
		s.errs <- errors.New("cut") // a short outage
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(sub.Set().Targets) != 1 || logs.FilterMessageSnippet("unreachable for too long").Len() != 1 {
			t.Error("the container was removed after a short outage")
		}
	})
	if e := (Endpoint{Host: "unix:///x", Trust: caddy.Duration(time.Minute)}); e.Validate() != nil {
		t.Error(e.Validate())
	}
}

func TestReadyWithoutAnAbsentEngine(t *testing.T) {
	one, absent := dockertest.NewStopped(t), dockertest.NewStopped(t)
	s, _ := follow(t, Selector{}, one, absent)
	testkit.Eventually(t, "both attempts failed", func() bool {
		return s.parts[0].watcher.status().Error != "" && s.parts[1].watcher.status().Error != ""
	})
	if s.Ready() {
		t.Error("ready without any engine")
	}
	one.Start(t)
	testkit.Eventually(t, "one engine suffices", s.Ready)
	absent.Start(t)
	testkit.Eventually(t, "the other is known, too", func() bool { return s.Set().Synced && s.Ready() })
	absent.Stop()
	if !s.Ready() {
		t.Error("not ready after an outage")
	}
}
