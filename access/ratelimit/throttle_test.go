package ratelimit

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/testkit"
)

func TestThrottleDelaysAndRefuses(t *testing.T) {
	p := rateLoad[*Throttle](t, rateContext(t), "rgate_throttle", `{"requests": 1, "window": "1h", "queue": 1, "max_wait": "2h"}`)
	if w := rateServe(t, p, rateRequest("203.0.113.7:1")); w.Code != http.StatusOK {
		t.Errorf("the first: got %d", w.Code)
	}
	if w := rateServe(t, p, rateRequest("203.0.113.8:1")); w.Code != http.StatusOK {
		t.Errorf("another client: got %d", w.Code)
	}
	// One request waits and is canceled.
	ctx, leave := context.WithCancel(context.Background())
	waits := make(chan error)
	go func() {
		r := rateRequest("203.0.113.7:1")
		waits <- p.ServeHTTP(httptest.NewRecorder(), r.WithContext(mergedContext{r.Context(), ctx}), rateOK)
	}()
	testkit.Eventually(t, "it waits", func() bool { return p.queues.waiting.Load() == 1 })
	w := rateServe(t, p, rateRequest("203.0.113.7:1"))
	if retry := w.Header().Get("Retry-After"); w.Code != http.StatusTooManyRequests || retry != "3600" || w.Body.String() != `{"error":"Too Many Requests","status":429}` {
		t.Errorf("with a full queue: got %d, %v, %q", w.Code, w.Header(), w.Body)
	}
	leave()
	var failed caddyhttp.HandlerError
	if err := <-waits; !errors.As(err, &failed) || failed.StatusCode != 499 {
		t.Errorf("who has left: got %v", err)
	}
	if n := p.queues.waiting.Load(); n != 0 {
		t.Errorf("%d wait", n)
	}
}

// mergedContext has the values of one context and is canceled with another.
type mergedContext struct {
	context.Context
	end context.Context
}

func (c mergedContext) Done() <-chan struct{} { return c.end.Done() }
func (c mergedContext) Err() error            { return c.end.Err() }

func TestThrottleLetsThemGoOnInOrder(t *testing.T) {
	p := rateLoad[*Throttle](t, rateContext(t), "rgate_throttle", `{"requests": 1000, "window": "1s"}`)
	for range 20 {
		if w := rateServe(t, p, rateRequest("203.0.113.7:1")); w.Code != http.StatusOK {
			t.Errorf("got %d", w.Code)
		}
	}
}

// TestThrottleOutlivesReloads checks that queues survive a reload.
func TestThrottleOutlivesReloads(t *testing.T) {
	const options = `{"requests": 1, "window": "1h", "max_wait": "1ms"}`
	first, stop := caddy.NewContext(caddy.Context{Context: context.Background()})
	p := rateLoad[*Throttle](t, first, "rgate_throttle", options)
	equal := rateLoad[*Throttle](t, first, "rgate_throttle", options)
	if w := rateServe(t, p, rateRequest("203.0.113.7:1")); w.Code != http.StatusOK {
		t.Errorf("the first: got %d", w.Code)
	}
	if w := rateServe(t, equal, rateRequest("203.0.113.7:1")); w.Code != http.StatusOK {
		t.Errorf("of an equal policy: got %d", w.Code)
	}
	second, stopSecond := caddy.NewContext(caddy.Context{Context: context.Background()})
	p = rateLoad[*Throttle](t, second, "rgate_throttle", options)
	stop()
	if w := rateServe(t, p, rateRequest("203.0.113.7:1")); w.Code != http.StatusTooManyRequests {
		t.Errorf("after a reload: got %d", w.Code)
	}
	stopSecond()
	throttles.Range(func(key, _ any) bool {
		t.Errorf("the queues %v are still there", key)
		return true
	})
}

func TestThrottleCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		"rgate_throttle 10 1s": `{"requests":10,"window":1000000000}`,
		"rgate_throttle off":   `{"disabled":true}`,
		"rgate_throttle 10 1s {\nkey {http.auth.user.id}\nburst 20\nqueue 50\nmax_wait 5s\nname n\nipv6_prefix 56\n}": `{"requests":10,"window":1000000000,"burst":20,"key":"{http.auth.user.id}","ipv6_prefix":56,"name":"n","queue":50,"max_wait":5000000000}`,
	} {
		p := new(Throttle)
		d := caddyfile.NewTestDispenser(text)
		d.Next()
		if err := options.Unmarshal(d, p); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, _ := json.Marshal(p)
		var a, b any
		if _, _ = json.Unmarshal(got, &a), json.Unmarshal([]byte(want), &b); !reflect.DeepEqual(a, b) {
			t.Errorf("%s: got %s", text, got)
		}
	}
}

func TestThrottleCheck(t *testing.T) {
	for text, want := range map[string][2]string{
		`{}`:                               {"requests", "requests and window are required"},
		`{"requests": 5}`:                  {"window", "window is required"},
		`{"requests": 1, "window": "5us"}`: {"window", "invalid window 5µs"},
		`{"requests": 1, "window": "1s", "burst": -1}`:       {"burst", "invalid burst -1: must be 1 to 1000000"},
		`{"requests": 1, "window": "1s", "queue": 10001}`:    {"queue", "invalid queue 10001: must be 1 to 10000"},
		`{"requests": 1, "window": "1s", "max_wait": -1}`:    {"max_wait", "invalid max_wait -1ns: must be a positive duration of at most 24h, such as 30s"},
		`{"requests": 1, "window": "1s", "ipv6_prefix": -1}`: {"ipv6_prefix", "invalid ipv6_prefix -1"},
		`{"requests": 1, "window": "1s"}`:                    {},
		`{"disabled": true}`:                                 {},
	} {
		p := new(Throttle)
		if err := json.Unmarshal([]byte(text), p); err != nil {
			t.Fatal(err)
		}
		err := p.Check()
		var about *options.Error
		switch {
		case want[0] == "":
			if err != nil {
				t.Errorf("%s: %v", text, err)
			}
		case !errors.As(err, &about) || about.Field() != want[0] || !strings.Contains(err.Error(), want[1]):
			t.Errorf("%s: got %v, want %s", text, err, want[1])
		}
	}
}

func TestRateMetrics(t *testing.T) {
	ctx := rateContext(t)
	limit := rateLoad[*RateLimit](t, ctx, "rgate_rate_limit", `{"requests": 1, "window": "1h", "redis": "redis://:secret@127.0.0.1:1", "redis_timeout": "10s"}`)
	throttle := rateLoad[*Throttle](t, ctx, "rgate_throttle", `{"requests": 1000, "window": "1s"}`)
	for range 5 {
		rateServe(t, limit, rateRequest("203.0.113.7:1"))
		rateServe(t, throttle, rateRequest("203.0.113.7:1"))
	}
	throttle.queues.delayed.Store(4) // the actual number depends on the machine
	got := make(map[string]float64)
	families, err := ctx.GetMetricsRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, series := range family.GetMetric() {
			name := family.GetName()
			for _, label := range series.GetLabel() {
				name += " " + label.GetValue()
			}
			got[name] = series.GetCounter().GetValue() + series.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"rgate_rate_limit_keys": 1, "rgate_rate_limit_evicted_keys_total": 0,
		"rgate_rate_limit_redis_up 127.0.0.1:1": 0, "rgate_rate_limit_redis_errors_total 127.0.0.1:1": failuresUntilDown,
		"rgate_rate_limit_redis_fallbacks_total 127.0.0.1:1": 5,
		"rgate_throttle_waiting_requests":                    0, "rgate_throttle_delayed_requests_total": 4,
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s is %v, %v, want %v", name, value, ok, want)
		}
	}
}
