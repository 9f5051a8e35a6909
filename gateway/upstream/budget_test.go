package upstream

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/testkit"
)

func TestBudgetIsAShareOfTheRequests(t *testing.T) {
	now := time.Hour
	b := &budget{ratio: .2, now: func() time.Duration { return now }}
	if b.retry() {
		t.Error("a retry without any request")
	}
	granted := 0
	for range 100 { // seconds; each request attempts two retries
		for range 50 {
			b.request()
			for range 2 {
				if b.retry() {
					granted++
				}
			}
		}
		now += time.Second
	}
	if share := float64(granted) / 5000; share < .19 || share > .2 {
		t.Errorf("%d retries of 5000 requests, want a fifth", granted)
	}
	now += time.Minute
	if b.retry() {
		t.Error("old requests count")
	}
}

func TestBudgetAlwaysAllowsSomeRetries(t *testing.T) {
	now := time.Duration(0)
	b := &budget{ratio: 0, perSlice: 3, now: func() time.Duration { return now }}
	for _, want := range []int{30, 0, 30} {
		granted := 0
		for range 100 {
			if b.retry() {
				granted++
			}
		}
		if granted != want {
			t.Errorf("%d retries, want %d", granted, want)
		}
		now += 5 * time.Second
	}
	if (*budget)(nil).request(); !(*budget)(nil).retry() {
		t.Error("a nil budget limits retries")
	}
}

// refusingGuard is a guard that rejects one address in Allows and another in Begin.
type refusingGuard struct{ barred, late string }

func (g *refusingGuard) Allows(address string) bool { return address != g.barred }
func (g *refusingGuard) Begin(address string) bool  { return address != g.late }
func (g *refusingGuard) End(int, error)             {}

// firstSelector selects the first upstream and counts its calls.
type firstSelector struct{ calls int }

func (s *firstSelector) Select(pool reverseproxy.UpstreamPool, _ *http.Request, _ http.ResponseWriter) *reverseproxy.Upstream {
	s.calls++
	return pool[0]
}

func TestGuardRestrictsTheUpstreams(t *testing.T) {
	pool := reverseproxy.UpstreamPool{{Dial: "a"}, {Dial: "b"}, {Dial: "c"}}
	for _, tc := range []struct {
		barred, late string
		pool         reverseproxy.UpstreamPool
		want         string
		calls        int
	}{
		{"", "", pool, "a", 1},
		{"a", "", pool, "b", 1},
		{"a", "b", pool, "c", 2},
		{"a", "b", pool[:2], "", 1},
		{"a", "", pool[:1], "", 0},
	} {
		inner, chosen := new(firstSelector), ""
		if upstream := (guardedSelector{inner, &refusingGuard{barred: tc.barred, late: tc.late}}).Select(tc.pool, nil, nil); upstream != nil {
			chosen = upstream.Dial
		}
		if chosen != tc.want || inner.calls != tc.calls {
			t.Errorf("%+v: got %q after %d calls", tc, chosen, inner.calls)
		}
	}
	if len(pool) != 3 || pool[0].Dial != "a" {
		t.Error("the pool has changed")
	}
}

func TestRoutesWithTheSameLimitsShareTransports(t *testing.T) {
	ctx := testkit.Context(t)
	s, err := New(ctx, Options{Name: "b", Dial: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		if err := s.AddLimits(ctx, Limits{FirstByte: options.Timeout(time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.transport.limited); n != 1 {
		t.Errorf("there are %d transports for routes with limits of their own, want 1", n)
	}
}
