package dockerupstreams

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/rgate/rgate/dockerupstreams/dockertest"
	"github.com/rgate/rgate/internal/testkit"
)

func TestContainersComeAndGo(t *testing.T) {
	e := dockertest.New(t)
	a := e.Run(web("a"))
	e.Run(dockertest.Container{Name: "other", Labels: map[string]string{"app": "db"}})
	s, _ := follow(t, Selector{}, e)
	set := expect(t, s, "a")
	if got, want := set.Targets[0], (Target{Dial: "172.17.0.1:80", Container: "a", ID: a, Scheme: "http", Weight: 1, Pool: "172.17.0.1:80" + poolDigits(a)}); got != want {
		t.Errorf("target is %+v, want %+v", got, want)
	}

	b := e.Run(web("b"))
	expect(t, s, "a", "b")
	e.Die(a)
	expect(t, s, "b")
	e.StartAgain(a)
	expect(t, s, "a", "b")
	e.Pause(b, true)
	expect(t, s, "a")
	e.Pause(b, false)
	expect(t, s, "a", "b")
	e.Change(a, "rename", func(c *dockertest.Container) { c.Name = "z" })
	expect(t, s, "b", "z")
	e.Die(b)
	e.Remove(b)
	e.Die(a)
	expect(t, s)
	if lists := e.Counts().Lists; lists != 1 {
		t.Errorf("listed all containers %d times, want once", lists)
	}
}

func TestHealthGate(t *testing.T) {
	e := dockertest.New(t)
	c := web("a")
	c.Health = "starting"
	id := e.Run(c)
	gated, _ := follow(t, Selector{}, e)
	anyhow, _ := follow(t, Selector{Health: "any"}, e)
	expect(t, anyhow, "a")
	set := expect(t, gated)
	if len(set.Rejected) != 1 || !set.Rejected[0].Temporary {
		t.Errorf("rejected: %+v, want a, for a while", set.Rejected)
	}
	e.SetHealth(id, "healthy")
	expect(t, gated, "a")
	e.SetHealth(id, "unhealthy")
	expect(t, gated)
	expect(t, anyhow, "a")
	// Podman reports that the health changed, without the new state.
	e.Change(id, "health_status", func(c *dockertest.Container) { c.Health = "healthy" })
	expect(t, gated, "a")
}

func TestNetworkEventsMoveAContainer(t *testing.T) {
	e := dockertest.New(t)
	c := web("a")
	c.Networks = map[string]dockertest.Network{"back": {IPAddress: "10.0.0.2"}}
	id := e.Run(c)
	s, _ := follow(t, Selector{Network: "front"}, e)
	if set := expect(t, s); len(set.Rejected) != 1 {
		t.Fatalf("rejected: %+v, want a, which is not in the network", set.Rejected)
	}
	e.Connect(id, "front", dockertest.Network{IPAddress: "10.1.0.2"})
	set := expect(t, s, "a")
	if set.Targets[0].Dial != "10.1.0.2:80" {
		t.Errorf("dials %s, want the address in network front", set.Targets[0].Dial)
	}
	e.Connect(id, "front", dockertest.Network{})
	expect(t, s)
}

// Docker emits some events before its lists contain the changes.
func TestListsThatLagBehindEvents(t *testing.T) {
	e := dockertest.New(t)
	a, b := e.Run(web("a")), e.Run(web("b"))
	s, _ := follow(t, Selector{}, e)
	expect(t, s, "a", "b")
	e.Fail(dockertest.Faults{ListLag: 100 * time.Millisecond})

	e.Pause(a, true)
	expect(t, s, "b")
	e.Pause(a, false)
	expect(t, s, "a", "b")

	e.Connect(a, "bridge", dockertest.Network{IPAddress: "172.17.9.9"})
	testkit.Eventually(t, "the new address is known", func() bool { return s.Set().ByDial("172.17.9.9:80") != nil })

	e.Die(b)
	expect(t, s, "a")
	before := syncs(s)
	s.Refresh() // called after a failed dial
	testkit.Eventually(t, "all containers were listed", func() bool { return syncs(s) > before })
	if names := namesOf(s.Set()); !slices.Equal(names, []string{"a"}) {
		t.Errorf("after the list, the set is %v, with a container that died", names)
	}
}

func TestKilledContainersDrainAtOnce(t *testing.T) {
	e := dockertest.New(t)
	a, b := e.Run(web("a")), e.Run(web("b"))
	s, _ := follow(t, Selector{}, e)
	expect(t, s, "a", "b")

	e.Kill(a, 1)  // SIGHUP
	e.Kill(a, 28) // SIGWINCH
	e.Kill(b, 15)
	set := expect(t, s, "a")
	if len(set.Rejected) != 1 || set.Rejected[0].Container != "b" || !set.Rejected[0].Temporary {
		t.Errorf("rejected: %+v, want b, for a while", set.Rejected)
	}
	e.Die(b)
	testkit.Eventually(t, "b is gone for good", func() bool { return len(s.Set().Rejected) == 0 })
	e.StartAgain(b)
	expect(t, s, "a", "b")
}

func TestEventsAreHeardDuringASlowList(t *testing.T) {
	e := dockertest.New(t)
	a, b := e.Run(web("a")), e.Run(web("b"))
	s, _ := follow(t, Selector{}, e)
	expect(t, s, "a", "b")
	e.Fail(dockertest.Faults{ListDelay: 2 * time.Second})
	begun := time.Now()
	s.Refresh()
	testkit.Eventually(t, "the slow list is on its way", func() bool { return e.Counts().Lists == 2 })
	e.Kill(a, 15)
	expect(t, s, "b")
	e.Die(b) // the list in flight still contains it
	expect(t, s)
	if took := time.Since(begun); took > 1900*time.Millisecond {
		t.Skipf("the machine took %s, longer than the list", took)
	}
	e.Fail(dockertest.Faults{})
	testkit.Eventually(t, "the slow list is in", func() bool { return syncs(s) == 2 })
	expect(t, s)
}

func TestOutages(t *testing.T) {
	outages := map[string]func(t *testing.T, e *dockertest.Engine){
		"stream cut": func(_ *testing.T, e *dockertest.Engine) { e.CutStreams() },
		"engine restarted": func(t *testing.T, e *dockertest.Engine) {
			e.Stop()
			e.Start(t)
		},
		"bad JSON": func(_ *testing.T, e *dockertest.Engine) {
			fails(t, e, dockertest.Faults{ListBody: `[{"Id":"x"`})
		},
		"not a list": func(_ *testing.T, e *dockertest.Engine) {
			fails(t, e, dockertest.Faults{ListBody: `{"message":"no"}`})
		},
		"server errors": func(_ *testing.T, e *dockertest.Engine) {
			fails(t, e, dockertest.Faults{ListStatus: 500})
		},
		"forbidden events": func(_ *testing.T, e *dockertest.Engine) {
			fails(t, e, dockertest.Faults{Refuse: map[string]int{"/events": http.StatusForbidden}})
		},
	}
	for name, strike := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := dockertest.New(t)
			a := e.Run(web("a"))
			s, _ := follow(t, Selector{}, e)
			expect(t, s, "a")

			// The stream repeats the start event of a. Wait until it is processed.
			testkit.Eventually(t, "all is quiet", func() bool { return e.Streaming() == 1 && s.parts[0].watcher.lists.Load() == 1 })

			// Changes during an outage are known after the next connection. Until then,
			// the set is unchanged.
			var wrong []string
			watch := make(chan struct{})
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					select {
					case <-watch:
						return
					default:
					}
					names := strings.Join(namesOf(s.Set()), " ")
					if names != "a" && names != "b" {
						wrong = append(wrong, names)
						return
					}
				}
			}()
			e.Mute(true)
			e.Run(web("b"))
			e.Die(a)
			e.Mute(false)
			strike(t, e)
			expect(t, s, "b")
			close(watch)
			<-done
			if wrong != nil {
				t.Errorf("in between, the set was %q", wrong)
			}
			e.Run(web("c"))
			expect(t, s, "b", "c")
		})
	}
}

// fails closes the connection and makes attempts fail until the watcher has tried twice.
func fails(t testing.TB, e *dockertest.Engine, faults dockertest.Faults) {
	e.Fail(faults)
	e.CutStreams()
	before := e.Counts()
	testkit.Eventually(t, "the watcher has tried twice", func() bool { return e.Counts().Pings > before.Pings+1 })
	e.Fail(dockertest.Faults{})
}

// Without events, the watcher relies on lists and logs a single warning.
func TestEventsForbidden(t *testing.T) {
	e := dockertest.New(t)
	e.Fail(dockertest.Faults{Refuse: map[string]int{"/events": http.StatusForbidden}})
	e.Run(web("a"))
	s, logs := follow(t, Selector{}, e)
	testkit.Eventually(t, "the log says what to allow", func() bool {
		for _, line := range logs.FilterLevelExact(zapcore.WarnLevel).All() {
			if text, _ := line.ContextMap()["error"].(string); strings.Contains(text, "let the socket proxy pass GET on /_ping, /events") {
				return true
			}
		}
		return false
	})
	e.Run(web("b"))
	expect(t, s, "a", "b")
	if n := logs.FilterLevelExact(zapcore.WarnLevel).Len(); n != 1 {
		t.Errorf("warned %d times, want once", n)
	}
}

func TestEngineAbsentAtStart(t *testing.T) {
	e := dockertest.NewStopped(t)
	s, logs := follow(t, Selector{}, e)
	testkit.Eventually(t, "the outage was logged", func() bool { return logs.FilterLevelExact(zapcore.WarnLevel).Len() == 1 })
	if set := s.Set(); set.Synced || len(set.Targets) != 0 {
		t.Errorf("set is %+v, want an empty one that is not synced", set)
	}
	e.Run(web("a"))
	e.Start(t)
	expect(t, s, "a")
	if n := logs.FilterLevelExact(zapcore.WarnLevel).Len(); n != 1 {
		t.Errorf("logged the outage %d times, want once", n)
	}
	testkit.Eventually(t, "the connection was logged", func() bool { return logs.FilterLevelExact(zapcore.InfoLevel).Len() == 1 })
}

func TestOldEngines(t *testing.T) {
	for _, version := range []string{"1.24", "1.41", "1.51", "1.99"} {
		t.Run(version, func(t *testing.T) {
			e := dockertest.New(t)
			e.Fail(dockertest.Faults{APIVersion: version})
			e.Run(web("a"))
			s, _ := follow(t, Selector{}, e)
			expect(t, s, "a")
			e.Run(web("b"))
			expect(t, s, "a", "b")
			want := version
			if version == "1.99" {
				want = "1.51" // the newest supported version
			}
			versions := e.Counts().Versions
			if len(versions) != 1 || versions[want] == 0 {
				t.Errorf("spoke %v, want %s alone", versions, want)
			}
		})
	}
}

// An engine may be downgraded while the gateway runs.
func TestVersionIsNegotiatedAtEveryConnect(t *testing.T) {
	e := dockertest.New(t)
	e.Run(web("a"))
	s, _ := follow(t, Selector{}, e)
	expect(t, s, "a")
	e.Stop()
	e.Fail(dockertest.Faults{APIVersion: "1.30"})
	e.Run(web("b"))
	e.Start(t)
	expect(t, s, "a", "b")
	e.Stop()
	e.Fail(dockertest.Faults{})
	e.Run(web("c"))
	e.Start(t)
	expect(t, s, "a", "b", "c")
	if versions := e.Counts().Versions; versions["1.30"] == 0 || versions["1.51"] < 3 {
		t.Errorf("spoke %v, want 1.51, then 1.30, then 1.51 again", versions)
	}
}

// A container is drained even if its stop began before the connection.
func TestStopUnderWayAtConnectDrains(t *testing.T) {
	e := dockertest.New(t)
	a, b := e.Run(web("a")), e.Run(web("b"))
	e.Kill(a, 15)
	// This container was restarted: its die event is outdated.
	e.Kill(b, 15)
	e.Die(b)
	e.StartAgain(b)
	s, _ := follow(t, Selector{}, e)
	testkit.Eventually(t, "a alone drains", func() bool {
		names := namesOf(s.Set())
		if s.Set().Synced && !slices.Contains(names, "b") {
			t.Fatalf("the set is %v, without b", names)
		}
		return s.Set().Synced && slices.Equal(names, []string{"b"})
	})
}

func TestPingMayFailWhereTheEngineWorks(t *testing.T) {
	e := dockertest.New(t)
	e.Fail(dockertest.Faults{PingStatus: http.StatusInternalServerError})
	e.Run(web("a"))
	s, _ := follow(t, Selector{}, e)
	expect(t, s, "a")
}
