package integration

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"

	"github.com/rgate/rgate/internal/testkit"
)

// The tests in this file measure time, or load the machine. Most of them are not
// parallel.

func TestKillOfTheOnlyContainerUnderLoad(t *testing.T) {
	web := startContainer(t, spec{})
	g := startGateway(t, oneBackend)
	g.awaitStatus(t, "/", http.StatusOK)
	load := g.startTraffic(t, 4, "/")
	within(t, 100*time.Millisecond, "from the engine's start event to the first response under load", 5, func() time.Duration {
		load.awaitMore(t, "200", 100)
		web.kill(t)
		load.awaitMore(t, "503", 100)
		started := web.happenings(t, events.ActionStart)
		load.mark()
		web.start(t)
		return load.firstSeen(t, "200").Sub(started())
	})
	only(t, load.stop(), "200", "503")
}

func TestTimeFromStartToFirstRequest(t *testing.T) {
	g := startGateway(t, oneBackend)
	g.awaitStatus(t, "/", http.StatusServiceUnavailable)
	load := g.startTraffic(t, 1, "/")
	within(t, 100*time.Millisecond, "from the engine's start event to the first request that a new container serves", 9, func() time.Duration {
		load.awaitMore(t, "503", 3)
		web := startContainer(t, spec{created: true})
		started := web.happenings(t, events.ActionStart)
		load.mark()
		web.start(t)
		took := load.firstSeen(t, "200").Sub(started())
		web.remove(t)
		return took
	})
	only(t, load.stop(), "200", "503")
}

// within runs a measurement several times and fails the test if the median exceeds the
// limit. Because other programs may slow the machine down, it makes up to three attempts.
func within(t *testing.T, limit time.Duration, what string, times int, measure func() time.Duration) {
	t.Helper()
	for range 3 {
		took := make([]time.Duration, times)
		for i := range took {
			took[i] = measure()
		}
		t.Logf("%s: %s", what, summary(took))
		if median(took) <= limit {
			return
		}
	}
	t.Errorf("%s: the median was never within %s", what, limit)
}

func median(took []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[len(sorted)/2]
}

func summary(took []time.Duration) string {
	return fmt.Sprintf("median %s, best %s, worst %s of %d", median(took).Round(time.Microsecond),
		slices.Min(took).Round(time.Microsecond), slices.Max(took).Round(time.Microsecond), len(took))
}

func TestRollingRestartUnderLoadLosesNoRequest(t *testing.T) {
	two := []*box{startContainer(t, spec{}), startContainer(t, spec{})}
	g := startGateway(t, oneBackend)
	g.await(t, "web", 2)
	load := g.startTraffic(t, 4, "/")
	for range 2 {
		for _, b := range two {
			load.awaitMore(t, "200", 50)
			b.restart(t)
			b.awaitPort(t, 8080)
			g.await(t, "web", 2)
		}
	}
	load.awaitMore(t, "200", 50)
	only(t, load.stop(), "200")
}

func TestKillOfOneOfTwoUnderLoadLosesNoRequest(t *testing.T) {
	two := []*box{startContainer(t, spec{}), startContainer(t, spec{})}
	g := startGateway(t, oneBackend)
	g.await(t, "web", 2)
	load := g.startTraffic(t, 4, "/")
	for range 2 {
		for _, b := range two {
			load.awaitMore(t, "200", 50)
			b.kill(t)
			load.awaitMore(t, "200", 50)
			b.start(t)
			b.awaitPort(t, 8080)
			g.await(t, "web", 2)
		}
	}
	only(t, load.stop(), "200")
}

// A container that is being stopped receives no new requests and completes those in
// flight.
func TestStoppedContainerIsDrained(t *testing.T) {
	t.Parallel()
	stopping := startContainer(t, spec{args: []string{"-linger", "6s"}})
	g := startGateway(t, oneBackend)
	g.await(t, "web", 1)
	inFlight := make(chan response, 1)
	request := g.request(t, "GET", "/?delay=2s", "")
	go func() {
		got, err := do(g.client, request)
		if err != nil {
			t.Errorf("the request in flight: %v", err)
		}
		inFlight <- got
	}()
	testkit.Eventually(t, "the request is in flight", func() bool { return stopping.counts(t).InFlight == 1 })
	staying := startContainer(t, spec{})
	g.await(t, "web", 2)

	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stopping.stop(t)
	}()
	g.await(t, "web", 1)
	before := stopping.counts(t).Total // the container still responds
	const n = 50
	for range n {
		if got := g.get(t, "/").echo(t).Container; got != staying.id[:12] {
			t.Fatalf("a request went to container %s, want %s", got, staying.id[:12])
		}
	}
	if after := stopping.counts(t).Total; after != before {
		t.Errorf("the container that is being stopped got %d more requests", after-before)
	}
	select {
	case <-stopped:
		t.Error("the container was stopped before anything could be seen; let it linger for longer")
	default:
	}
	if got := <-inFlight; got.status != http.StatusOK {
		t.Errorf("the request in flight: got %d, want 200", got.status)
	}
	<-stopped
	if got := staying.counts(t).Total; got != n {
		t.Errorf("the other container saw %d requests, want %d", got, n)
	}
}

// A signal that does not end a container must not remove its upstream.
func TestSignalThatEndsNothingDoesNotDrain(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{})
	g := startGateway(t, oneBackend)
	g.await(t, "web", 1)
	load := g.startTraffic(t, 2, "/")
	signalled := web.happenings(t, events.ActionKill)
	must(t, "sending SIGWINCH", engine.ContainerKill(t.Context(), web.id, "WINCH"))
	signalled()
	load.awaitMore(t, "200", 100)
	only(t, load.stop(), "200")
}
