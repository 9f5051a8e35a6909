package dockerupstreams

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rgate/rgate/dockerupstreams/dockertest"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/testkit"
)

func TestSignalsAreNamesOrNumbers(t *testing.T) {
	for text, want := range map[string]Signal{
		`"SIGWINCH"`: 28, `"winch"`: 28, `"USR1"`: 10, `28`: 28, `"28"`: 28, `" TERM"`: 15, `"SIGRTMIN+3"`: 37, `"RTMIN"`: 34, `"RTMAX-2"`: 62, `64`: 64,
		`""`: 0, `"SIG"`: 0, `0`: 0, `65`: 0, `"-1"`: 0, `"RTMIN-1"`: 0, `"RTMAX+1"`: 0, `"STOPPED"`: 0, `null`: 0, `"SIGSIGTERM"`: 0,
	} {
		var got Signal
		if err := json.Unmarshal([]byte(text), &got); text != "null" && (err == nil) != (want != 0) || got != want {
			t.Errorf("%s: got %d, %v, want %d", text, got, err, want)
		}
	}
	encoded, err := json.Marshal([]Signal{28, 37})
	if err != nil || string(encoded) != `["SIGWINCH","37"]` {
		t.Errorf("encoded as %s, %v", encoded, err)
	}
}

func TestEndpointOptions(t *testing.T) {
	var s Source
	d := caddyfile.NewTestDispenser("docker_labels app=web {\nendpoint unix:///x {\ndrain 15s\nstop_signals SIGWINCH USR1\nstop_signals 37\ntrust 5m\n}\n}")
	if err := s.UnmarshalCaddyfile(d); err != nil {
		t.Fatal(err)
	}
	fromJSON := Endpoint{}
	if err := json.Unmarshal([]byte(`{"host":"unix:///x","drain":"15s","stop_signals":[28,"SIGUSR1","RTMIN+3"],"trust":"5m"}`), &fromJSON); err != nil {
		t.Fatal(err)
	}
	a, err := resolveEndpoint(s.Endpoints[0])
	b, errB := resolveEndpoint(fromJSON)
	if err != nil || errB != nil || a != b {
		t.Errorf("resolved to %+v, %v and %+v, %v", a, err, b, errB)
	}
	for want, e := range map[string]Endpoint{
		"drain": {Drain: options.Timeout(-time.Second)}, "trust": {Trust: -1},
	} {
		var field interface{ Field() string }
		if err := e.Validate(); !errors.As(err, &field) || field.Field() != want {
			t.Errorf("%+v: %v, want an error about %s", e, err, want)
		}
	}
}

// A container that is being stopped gets no requests until it ends, starts, is unpaused,
// becomes healthy, or until the drain is over.
func TestDrainEnds(t *testing.T) {
	inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, logs *observer.ObservedLogs) {
		for _, ends := range []action{actionStart, actionUnpause, actionHealthy} {
			s.emit(actionKill, 15)
			time.Sleep(4 * time.Minute)
			s.emit(actionOther, 0)
			if len(sub.Set().Targets) != 0 {
				t.Fatal("a container that is being stopped is still a target")
			}
			if s.emit(ends, 0); len(sub.Set().Targets) != 1 {
				t.Errorf("action %d did not end the drain", ends)
			}
		}
		if n := logs.FilterLevelExact(zapcore.WarnLevel).Len(); n != 0 {
			t.Errorf("warned %d times, want never", n)
		}
		s.emit(actionKill, 15)
		time.Sleep(drainFor)
		synctest.Wait()
		warnings := logs.FilterLevelExact(zapcore.WarnLevel).All()
		if len(sub.Set().Targets) != 1 || len(warnings) != 1 || !strings.Contains(warnings[0].Message, "receives requests again") {
			t.Errorf("after the drain: %d targets, warnings %v", len(sub.Set().Targets), warnings)
		}
		s.emit(actionKill, 0) // Podman: an unknown signal
		time.Sleep(drainAfterUnknown)
		synctest.Wait()
		if len(sub.Set().Targets) != 1 {
			t.Error("an unknown signal drained the container for too long")
		}
	})
	for _, drain := range []options.Timeout{options.TimeoutOff, options.Timeout(15 * time.Second)} {
		addr := address{host: "unix:///nowhere", stop: stopOptions{drain: drain}}
		inABubbleWith(t, origin{}, addr, func(t *testing.T, s *script, sub *Subscription, _ *observer.ObservedLogs) {
			s.emit(actionKill, 15)
			if drains := len(sub.Set().Targets) == 0; drains == drain.IsOff() {
				t.Errorf("with drain %d, the container drains: %v", drain, drains)
			}
			time.Sleep(drain.Or(0))
			synctest.Wait()
			if len(sub.Set().Targets) != 1 {
				t.Errorf("drain %d did not end", drain)
			}
		})
	}
}

// The signals that stop a container are those of the engine's options, of the label and
// of the image.
func TestStopSignals(t *testing.T) {
	labels := func(s *script, value string) {
		s.set(func() { s.running[0].labels = map[string]string{"app": "web", labelStopSignals: value} })
	}
	for name, c := range map[string]struct {
		stop   stopOptions
		label  string
		image  Signal
		stops  []Signal
		ignore []Signal
	}{
		"none":   {stops: []Signal{15}, ignore: []Signal{28, 10}},
		"option": {stop: Endpoint{StopSignals: []Signal{28, 10}}.stopOptions(), stops: []Signal{28, 10, 15}, ignore: []Signal{12}},
		"label":  {label: "SIGWINCH, 10", stops: []Signal{28, 10, 15}, ignore: []Signal{12}},
		"image":  {image: 28, stops: []Signal{28, 15}, ignore: []Signal{10}},
	} {
		inABubbleWith(t, origin{}, address{host: "unix:///nowhere", stop: c.stop}, func(t *testing.T, s *script, sub *Subscription, _ *observer.ObservedLogs) {
			if c.label != "" {
				labels(s, c.label)
			}
			s.set(func() { s.signal = c.image })
			s.emit(actionEnd, 0)
			s.emit(actionStart, 0)
			for _, signal := range c.ignore {
				if s.emit(actionKill, signal); len(sub.Set().Targets) != 1 {
					t.Errorf("%s: signal %s drains", name, signal)
				}
			}
			for _, signal := range c.stops {
				if s.emit(actionKill, signal); len(sub.Set().Targets) != 0 {
					t.Errorf("%s: signal %s does not drain", name, signal)
				}
				s.emit(actionStart, 0)
			}
		})
	}
}

// A signal may arrive before the stop signal of the container is known.
func TestStopSignalThatIsKnownLate(t *testing.T) {
	inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, _ *observer.ObservedLogs) {
		w := sub.parts[0].watcher
		s.emit(actionKill, 28)
		w.mu.Lock()
		w.table.inspected(running(nil).id, 28, time.Now())
		w.mu.Unlock()
		sub.Refresh()
		synctest.Wait()
		if len(sub.Set().Targets) != 0 {
			t.Error("the container is still a target")
		}
	})
}

func TestContainersAreInspectedOnce(t *testing.T) {
	inABubble(t, origin{}, func(t *testing.T, s *script, sub *Subscription, logs *observer.ObservedLogs) {
		count := func() (n int) {
			s.set(func() { n = len(s.inspected) })
			return n
		}
		for range 3 {
			time.Sleep(hintGap)
			sub.Refresh()
			s.emit(actionOther, 0)
		}
		if n := count(); n != 1 {
			t.Errorf("inspected %d times, want once", n)
		}
		s.emit(actionEnd, 0)
		s.set(func() { s.inspectErr = &rejectedError{errors.New("forbidden")} })
		for range 3 {
			s.emit(actionEnd, 0)
			s.emit(actionStart, 0)
		}
		if n := count(); n != 2 {
			t.Errorf("inspected %d times, want one more", n)
		}
		if n := logs.FilterMessageSnippet("cannot read the stop signals").Len(); n != 1 {
			t.Errorf("logged the missing permission %d times, want once", n)
		}
		if len(sub.Set().Targets) != 1 {
			t.Error("without inspections, the container is no target")
		}
		s.errs <- errors.New("cut") // another connection may be permitted
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := count(); n != 3 || logs.FilterMessageSnippet("cannot read the stop signals").Len() != 1 {
			t.Errorf("inspected %d times, want one more, without another message", n)
		}
	})
}

func TestProxiesThatRejectInspections(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusInternalServerError} {
		e := dockertest.New(t)
		e.Fail(dockertest.Faults{Refuse: map[string]int{"/containers/{id}/json": status}})
		c := web("a")
		c.StopSignal = "SIGWINCH"
		e.Run(c)
		s, logs := follow(t, Selector{}, e)
		expect(t, s, "a")
		b := e.Run(web("b"))
		expect(t, s, "a", "b")
		e.Kill(b, 15)
		expect(t, s, "a")
		if status != http.StatusInternalServerError {
			testkit.Eventually(t, "the permission is named", func() bool {
				return logs.FilterMessageSnippet("pass GET on /containers/{id}/json, or set the option stop_signals").Len() == 1
			})
		}
	}
}

func TestInvalidStopSignals(t *testing.T) {
	for _, value := range []string{"", "TERM,", "now", "0", "65"} {
		_, rejection := resolve(new(Selector), labelled(labelStopSignals, value), nil, &onHost)
		if rejection == nil || rejection.Label != labelStopSignals {
			t.Errorf("%q: rejection %+v, want one of the label", value, rejection)
		}
	}
	if signals, err := stopSignals(map[string]string{labelStopSignals: "WINCH, usr1,37"}); err != nil || !slices.Equal(signals, []Signal{28, 10, 37}) {
		t.Errorf("parsed as %v, %v", signals, err)
	}
}
