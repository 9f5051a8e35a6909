package circuitbreaker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/policy/policytest"
)

func TestStateOutlivesAReload(t *testing.T) {
	place := policy.RouteInfo{Gateway: t.Name(), Backend: "b"}
	old := testkit.Provision(t, &CircuitBreaker{Failures: 1})
	circuitSend(t, old, &policytest.RequestState{At: place}, policytest.RespondWith(500))
	same, other := testkit.Provision(t, &CircuitBreaker{Failures: 1}), testkit.Provision(t, &CircuitBreaker{Failures: 2})
	named := testkit.Provision(t, &CircuitBreaker{Failures: 1, Name: "own"})
	if same.stateAt(place) != circuitOpen || other.stateAt(place) != circuitClosed || named.stateAt(place) != circuitClosed {
		t.Error("the state belongs to the backend, the name and the options")
	}
	_ = old.Cleanup()
	if same.stateAt(place) != circuitOpen {
		t.Error("the state is gone with the old configuration")
	}
	_ = same.Cleanup()
	_ = same.stateAt(place) // a late request

	// The state survives two reloads without a request in between.
	first := testkit.Provision(t, &CircuitBreaker{Failures: 1, Name: "two"})
	circuitSend(t, first, &policytest.RequestState{At: place}, policytest.RespondWith(500))
	calm := policy.RouteInfo{Gateway: t.Name(), Backend: "calm"}
	circuitSend(t, first, &policytest.RequestState{At: calm}, policytest.RespondWith(200))
	second := testkit.Provision(t, &CircuitBreaker{Failures: 1, Name: "two"})
	_ = first.Cleanup()
	third := testkit.Provision(t, &CircuitBreaker{Failures: 1, Name: "two"})
	_ = second.Cleanup()
	if third.stateAt(place) != circuitOpen {
		t.Error("two reloads have lost the state")
	}
	if status.CircuitBreakers.All(status.Backend{Gateway: calm.Gateway, Name: calm.Backend}) != nil {
		t.Error("a state that does not matter is kept")
	}
	if testkit.Provision(t, &CircuitBreaker{Failures: 1}).stateAt(place) != circuitClosed {
		t.Error("the state has outlived everybody")
	}

	// Outside of a gateway, a state belongs to the name, or to the position.
	circuitSend(t, named, nil, policytest.RespondWith(500))
	again := testkit.Provision(t, &CircuitBreaker{Failures: 1, Name: "own"})
	stranger := testkit.Provision(t, &CircuitBreaker{Failures: 1})
	if again.stateAt(policy.RouteInfo{}) != circuitOpen || stranger.stateAt(policy.RouteInfo{}) != circuitClosed {
		t.Error("outside of a gateway, the state belongs to the name")
	}
}

func TestBreakerPerContainer(t *testing.T) {
	p := testkit.Provision(t, &CircuitBreaker{Failures: 2, PerContainer: true})
	ex := &policytest.RequestState{At: policy.RouteInfo{Gateway: t.Name(), Backend: "b"}}
	visit := func(address string, status int, cause error) (entered bool) {
		_, _ = circuitSend(t, p, ex, func(w http.ResponseWriter, _ *http.Request) error {
			if !ex.Guarding.Allows(address) {
				return caddyhttp.Error(503, errors.New("no upstreams available"))
			}
			if entered = ex.Guarding.Begin(address); entered {
				ex.Guarding.End(status, cause)
			}
			return nil
		})
		return entered
	}
	visit("a", 500, nil)
	visit("b", 500, nil)
	visit("a", 0, io.EOF)
	visit("b", 404, nil)
	visit("b", 0, context.Canceled)
	visit("b", 500, nil)
	if visit("a", 200, nil) || !visit("b", 200, nil) {
		t.Error("a should be open, and b closed")
	}
	code, header := circuitSend(t, p, ex, func(http.ResponseWriter, *http.Request) error {
		ex.Guarding.Allows("a")
		return caddyhttp.Error(503, errors.New("no upstreams available"))
	})
	if code != 503 || header.Get("Retry-After") != "60" {
		t.Errorf("all are open: got %d, Retry-After %q", code, header.Get("Retry-After"))
	}
	if ex.Guarding != nil {
		t.Error("the guard stays")
	}
	report := status.CircuitBreakers.All(status.Backend{Gateway: ex.At.Gateway, Name: ex.At.Backend})[0]
	if report.IsOpen() || report.Containers["a"] != "open" || len(report.Containers) != 1 {
		t.Errorf("published: %+v", report)
	}
	if !report.Impairs([]string{"b", "a"}) || report.Impairs([]string{"b"}) {
		t.Error("a is impaired alone")
	}

	c := p.circuitAt(ex.At)
	a := c.of("a")
	a.mu.Lock()
	a.until = 0
	a.mu.Unlock()
	circuitSend(t, p, ex, func(http.ResponseWriter, *http.Request) error {
		if !ex.Guarding.Allows("a") || !ex.Guarding.Begin("a") {
			t.Error("no probe")
		}
		return nil // selected, but not sent
	})
	if !visit("a", 200, nil) || c.notClosed.Load() != 0 {
		t.Error("a probe that was never sent keeps its permit")
	}
	for i := range 1000 {
		visit(fmt.Sprint(i), 200, nil)
	}
	if n := len(*c.containers.Load()); n > 70 {
		t.Errorf("%d containers are remembered", n)
	}
}

func TestCircuitMetrics(t *testing.T) {
	ctx, err := caddy.ProvisionContext(new(caddy.Config))
	if err != nil {
		t.Fatal(err)
	}
	p, single := &CircuitBreaker{Failures: 1}, &CircuitBreaker{Failures: 1, PerContainer: true}
	policytest.ProvisionIn(t, ctx, p)
	policytest.ProvisionIn(t, ctx, single)
	defer p.Cleanup()
	defer single.Cleanup()
	ex := &policytest.RequestState{At: policy.RouteInfo{Gateway: t.Name(), Backend: "b"}}
	circuitSend(t, p, ex, policytest.RespondWith(500))
	circuitSend(t, single, ex, func(http.ResponseWriter, *http.Request) error {
		ex.Guarding.Begin("a")
		ex.Guarding.End(500, nil)
		return nil
	})
	families, err := ctx.GetMetricsRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, family := range families {
		for _, series := range family.GetMetric() {
			name, ours := family.GetName(), false
			for _, label := range series.GetLabel() {
				ours = ours || label.GetValue() == t.Name()
				if label.GetName() == "state" {
					name += " " + label.GetValue()
				}
			}
			if ours {
				got[name] += series.GetGauge().GetValue() + series.GetCounter().GetValue()
			}
		}
	}
	for name, want := range map[string]float64{
		"rgate_circuit_breaker_state": 2, "rgate_circuit_breaker_open_containers": 1,
		"rgate_circuit_breaker_transitions_total open": 2, "rgate_circuit_breaker_transitions_total closed": 0,
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s is %v, want %v: %v", name, value, want, got)
		}
	}
}

// listener receives events.
type listener chan string

func (l listener) Handle(_ context.Context, e caddy.Event) error {
	l <- fmt.Sprint(e.Name(), " ", e.Data["backend"], " ", e.Data["from"])
	return nil
}

func TestCircuitEvents(t *testing.T) {
	ctx, err := caddy.ProvisionContext(new(caddy.Config))
	if err != nil {
		t.Fatal(err)
	}
	app, err := ctx.App("events")
	if err != nil {
		t.Fatal(err)
	}
	heard := make(listener) // received after the request has ended
	if err := app.(*caddyevents.App).On("rgate_circuit_breaker_open", heard); err != nil {
		t.Fatal(err)
	}
	p := &CircuitBreaker{Failures: 1}
	policytest.ProvisionIn(t, ctx, p)
	defer p.Cleanup()
	for _, backend := range []string{"a", "b", "c"} {
		circuitSend(t, p, &policytest.RequestState{At: policy.RouteInfo{Gateway: t.Name(), Backend: backend}}, policytest.RespondWith(500))
	}
	for _, backend := range []string{"a", "b", "c"} {
		if got, want := <-heard, "rgate_circuit_breaker_open "+backend+" closed"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// The breaker of a container does not affect its successor at the same address, or the
// same container after a restart.
func TestCircuitForgetsTheContainerBefore(t *testing.T) {
	c := newCircuit(circuitKey{breakerOptions: breakerOptions{failures: 1, expire: time.Minute, recovery: time.Hour, probes: 1}, perContainer: true})
	defer func() { _ = c.Destruct() }()
	fail := func(b *breaker) {
		pass := b.begin()
		c.countChange(b, pass.change)
		c.countChange(b, b.end(pass.ticket, failed))
	}
	first := c.at("a", policy.Instance{ID: "1"})
	late := first.begin() // still in flight when the container is removed
	fail(first)
	if !first.isRejecting() || c.notClosed.Load() != 1 || len(c.report().Containers) != 1 {
		t.Fatalf("a failure did not open it: %+v", c.report())
	}
	if c.at("a", policy.Instance{ID: "1"}) != first {
		t.Error("the same container has another breaker")
	}
	for _, instance := range []policy.Instance{{ID: "1", Started: 1}, {ID: "2"}} {
		b := c.at("a", instance)
		if b.isRejecting() || c.notClosed.Load() != 0 || len(c.report().Containers) != 0 {
			t.Errorf("%+v inherits: %+v, %d are troubled", instance, c.report(), c.notClosed.Load())
		}
		c.countChange(first, first.end(late.ticket, failed))
		if c.notClosed.Load() != 0 {
			t.Error("the one before still counts")
		}
		fail(b)
	}
}
