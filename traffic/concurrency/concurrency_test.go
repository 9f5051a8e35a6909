package concurrency

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/policy/policytest"
)

// occupy sends a request that remains in flight until leave is called.
func occupy(t *testing.T, p *Concurrency, ex *policytest.RequestState) (leave func()) {
	t.Helper()
	end, inside, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	r, w := policytest.Request(t.Context(), ex, nil)
	go func() {
		defer close(ended)
		_ = p.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
			close(inside)
			<-end
			return nil
		}))
	}()
	<-inside
	return func() { close(end); <-ended }
}

func concurrencySend(ctx context.Context, p *Concurrency, ex *policytest.RequestState, next caddyhttp.HandlerFunc) (status int, header http.Header, err error) {
	r, w := policytest.Request(ctx, ex, nil)
	err = p.ServeHTTP(w, r, next)
	return w.Code, w.Header(), err
}

func TestConcurrencyTurnsAway(t *testing.T) {
	p := testkit.Provision(t, &Concurrency{Max: 1})
	leave := occupy(t, p, nil)
	code, header, err := concurrencySend(t.Context(), p, nil, policytest.RespondWith(200))
	if err != nil || code != 503 || header.Get("Retry-After") != "1" {
		t.Errorf("got %d, Retry-After %q, %v", code, header.Get("Retry-After"), err)
	}
	leave()
	if status, _, _ := concurrencySend(t.Context(), p, nil, policytest.RespondWith(200)); status != 200 {
		t.Errorf("afterwards: got %d", status)
	}

	place := policy.RouteInfo{Gateway: t.Name(), Route: "/", Backend: "b"}
	defer occupy(t, p, &policytest.RequestState{At: place})()
	_, _, err = concurrencySend(t.Context(), p, &policytest.RequestState{At: place}, policytest.RespondWith(200))
	var failure failure.Error
	if !errors.As(err, &failure) {
		t.Errorf("in a gateway: got %v, want a failure that the gateway handles", err)
	}
	place.Route = ""
	if got := status.ConcurrencyLimits.All(status.Backend{Gateway: place.Gateway, Name: place.Backend}); len(got) != 1 || got[0] != (status.ConcurrencyLimit{Max: 1, InFlight: 1, Rejected: 1}) {
		t.Errorf("published: %+v", got)
	}
	place.Backend = "another"
	if status, _, _ := concurrencySend(t.Context(), p, &policytest.RequestState{At: place}, policytest.RespondWith(200)); status != 200 {
		t.Errorf("another backend: got %d", status)
	}
}

func TestConcurrencyPanicGivesThePlaceBack(t *testing.T) {
	p := testkit.Provision(t, &Concurrency{Max: 1})
	for range 3 {
		func() {
			defer func() { _ = recover() }()
			_, _, _ = concurrencySend(t.Context(), p, nil, func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) })
		}()
	}
	if status, _, _ := concurrencySend(t.Context(), p, nil, policytest.RespondWith(200)); status != 200 {
		t.Errorf("got %d", status)
	}
}

func TestConcurrencyQueue(t *testing.T) {
	p := testkit.Provision(t, &Concurrency{Max: 1, Queue: 2, QueueTimeout: caddy.Duration(time.Minute)})
	synctest.Test(t, func(t *testing.T) {
		leave := occupy(t, p, nil)
		impatient, goAway := context.WithCancel(t.Context())
		bounded, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		type outcome struct {
			name   string
			status int
			code   int // status of the error
			after  time.Duration
		}
		outcomes, start := make(chan outcome, 9), time.Now()
		send := func(name string, ctx context.Context) {
			go func() {
				status, _, err := concurrencySend(ctx, p, nil, policytest.RespondWith(200))
				var failure caddyhttp.HandlerError
				errors.As(err, &failure)
				outcomes <- outcome{name, status, failure.StatusCode, time.Since(start)}
			}()
			synctest.Wait()
		}
		want := func(want outcome) {
			t.Helper()
			if got := <-outcomes; got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
		send("impatient", impatient)
		send("patient", context.Background())
		send("third", context.Background())
		want(outcome{name: "third", status: 503})
		goAway()
		want(outcome{"impatient", 200, 499, 0}) // status 200 in the recorder: nothing was written
		send("bounded", bounded)                // enters the free position in the queue
		want(outcome{"bounded", 503, 0, 10 * time.Second})
		want(outcome{"patient", 503, 0, time.Minute})
		send("last", context.Background())
		time.Sleep(time.Second)
		leave()
		want(outcome{name: "last", status: 200, after: time.Minute + time.Second})
	})
}

func TestConcurrencyCountsAcrossAReload(t *testing.T) {
	ex := &policytest.RequestState{At: policy.RouteInfo{Gateway: t.Name(), Backend: "b"}}
	old, next := testkit.Provision(t, &Concurrency{Max: 1}), testkit.Provision(t, &Concurrency{Max: 2})
	leave := occupy(t, old, ex)
	if _, _, err := concurrencySend(t.Context(), next, ex, policytest.RespondWith(200)); err == nil {
		t.Error("the larger one of two counts")
	}
	_ = old.Cleanup()
	if _, _, err := concurrencySend(t.Context(), next, ex, policytest.RespondWith(200)); err != nil {
		t.Errorf("when the old one is gone: %v", err)
	}
	defer occupy(t, next, ex)()
	if _, _, err := concurrencySend(t.Context(), next, ex, policytest.RespondWith(200)); err == nil {
		t.Error("what was under way at the reload is forgotten")
	}
	leave()

	// A request of an old configuration may be the first one in the new one's limit, for
	// example after it has waited in a throttle.
	ex.At.Backend = "late"
	before := testkit.Provision(t, &Concurrency{Max: 1})
	occupy(t, before, ex)()
	_ = before.Cleanup()
	now := testkit.Provision(t, &Concurrency{Max: 1})
	leave = occupy(t, now, ex)
	if _, _, err := concurrencySend(t.Context(), before, ex, policytest.RespondWith(200)); err == nil {
		t.Error("a late request of the old configuration is not counted with the others")
	}
	leave()
	leave = occupy(t, before, ex)
	if _, _, err := concurrencySend(t.Context(), now, ex, policytest.RespondWith(200)); err == nil {
		t.Error("a late request of the old configuration is not counted in the new one")
	}
	leave()

	// A WebSocket may outlive its configuration and be the only request in flight.
	ex.At.Backend = "c"
	last := testkit.Provision(t, &Concurrency{Max: 1, Name: "sockets"})
	leave = occupy(t, last, ex)
	after := testkit.Provision(t, &Concurrency{Max: 1, Name: "sockets"})
	_ = last.Cleanup()
	if _, _, err := concurrencySend(t.Context(), after, ex, policytest.RespondWith(200)); err == nil {
		t.Error("what outlives the configuration is forgotten")
	}
	leave()
	if _, _, err := concurrencySend(t.Context(), after, ex, policytest.RespondWith(200)); err != nil {
		t.Errorf("when it has left: %v", err)
	}
}

func TestConcurrencyByKey(t *testing.T) {
	p := testkit.Provision(t, &Concurrency{Max: 1, Key: "{user}"})
	r, w := policytest.Request(t.Context(), nil, nil)
	set := func(r *http.Request, user string) {
		r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).Set("user", user)
	}
	set(r, "alice")
	_ = p.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
		for user, want := range map[string]int{"alice": 503, "bob": 200} {
			r, w := policytest.Request(t.Context(), nil, nil)
			set(r, user)
			if err := p.ServeHTTP(w, r, policytest.RespondWith(200)); err != nil || w.Code != want {
				t.Errorf("%s: got %d and %v, want %d", user, w.Code, err, want)
			}
		}
		return nil
	}))
}

func TestConcurrencyOptions(t *testing.T) {
	for text, want := range map[string]string{
		"100":          "",
		"100 200 1s":   "",
		"off":          "",
		"100 200 1s x": "unexpected argument 'x'",
		"":             "max is required: set the maximum number of requests in flight, such as max: 100",
		"many":         "max must be a whole number, not 'many'",
		"{\nmax 10\nqueue 5\nqueue_timeout 2s\nkey {http.rgate.route}\nname a\n}": "",
		"-1":                "invalid max -1: must be 1 to 1000000",
		"1 -1":              "invalid queue -1: must be 0 to 1000000",
		"1 0 1s":            "queue_timeout requires queue: set queue or remove queue_timeout",
		"1 1 2h":            "invalid queue_timeout 2h0m0s: must be 1ms to 1h",
		"1 {\nkey alice\n}": `invalid key "alice": must have a placeholder`,
		"1 {\nqeue 1\n}":    `unrecognized subdirective 'qeue' (did you mean "queue"?)`,
	} {
		policytest.WantOptions(t, new(Concurrency), "rgate_concurrency "+text, want)
	}
}

func BenchmarkConcurrency(b *testing.B) {
	for name, options := range map[string]*Concurrency{"backend": {Max: 100}, "key": {Max: 100, Key: "{http.request.method}"}} {
		p := testkit.Provision(b, options)
		r, _ := policytest.Request(b.Context(), &policytest.RequestState{At: policy.RouteInfo{Gateway: b.Name(), Route: "/", Backend: "b"}}, nil)
		next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = p.ServeHTTP(nil, r, next)
			}
		})
	}
}
