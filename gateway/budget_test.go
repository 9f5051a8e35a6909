package gateway

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

func TestBudgetIsAShareOfTheRequests(t *testing.T) {
	now := time.Hour
	b := &budget{ratio: .2, now: func() time.Duration { return now }}
	if b.retry() {
		t.Error("a retry of no request")
	}
	granted := 0
	for range 100 { // seconds, in which every request asks for two retries
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
		t.Error("requests of long ago count")
	}
}

func TestBudgetHasAFewMore(t *testing.T) {
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
		t.Error("no budget is no bound")
	}
}

func TestRetriesEndWithTheirBudget(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	down := httptest.NewServer(nil)
	down.Close()
	g := start(t, `{"routes": [{"path_prefix": "/", "backend": "b"}], "backends": [{"name": "b",
		"dial": ["`+down.Listener.Addr().String()+`", "`+up.Listener.Addr().String()+`"],
		"lb_policy": {"policy": "first"}, "retry_budget": {"ratio": 0.5, "min_per_second": 0}}]}`)
	url := serve(t, g, new(caddyhttp.Server))
	codes := make(map[int]int)
	for range 40 {
		response, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		codes[response.StatusCode]++
	}
	if codes[200] != 20 || codes[503] != 20 {
		t.Errorf("got %v, want half of them retried", codes)
	}
}

// refusing is a guard that has changed its mind about an address.
type refusing struct {
	barred, late string
	left         []int
}

func (g *refusing) Allows(address string) bool { return address != g.barred }
func (g *refusing) Begin(address string) bool  { return address != g.late }
func (g *refusing) End(status int, _ error)    { g.left = append(g.left, status) }

// inOrder chooses the first one, and counts how often it is asked.
type inOrder struct{ asked int }

func (s *inOrder) Select(pool reverseproxy.UpstreamPool, _ *http.Request, _ http.ResponseWriter) *reverseproxy.Upstream {
	s.asked++
	return pool[0]
}

func TestGuardIsAsked(t *testing.T) {
	pool := reverseproxy.UpstreamPool{{Dial: "a"}, {Dial: "b"}, {Dial: "c"}}
	for _, tc := range []struct {
		barred, late string
		pool         reverseproxy.UpstreamPool
		want         string
		asked        int
	}{
		{"", "", pool, "a", 1},
		{"a", "", pool, "b", 1},
		{"a", "b", pool, "c", 2},
		{"a", "b", pool[:2], "", 1},
		{"a", "", pool[:1], "", 0},
	} {
		inner, chosen := new(inOrder), ""
		if upstream := (watched{inner, &refusing{barred: tc.barred, late: tc.late}}).Select(tc.pool, nil, nil); upstream != nil {
			chosen = upstream.Dial
		}
		if chosen != tc.want || inner.asked != tc.asked {
			t.Errorf("%+v: got %q after asking %d times", tc, chosen, inner.asked)
		}
	}
	if len(pool) != 3 || pool[0].Dial != "a" {
		t.Error("the pool has changed")
	}
}

func TestTimeoutsOfARoute(t *testing.T) {
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		delay, _ := time.ParseDuration(r.URL.Query().Get("delay"))
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
		}
	}))
	defer slow.Close()
	dial := slow.Listener.Addr().String()
	g := start(t, `{"routes": [
		{"path_prefix": "/", "backend": "b"},
		{"path_prefix": "/first", "backend": "b", "timeouts": {"first_byte": "30ms"}},
		{"path_prefix": "/again", "backend": "b", "timeouts": {"first_byte": "30ms"}},
		{"path_prefix": "/total", "backend": "b", "timeouts": {"total": "30ms"}},
		{"path_prefix": "/patient", "backend": "impatient", "timeouts": {"first_byte": "1m", "total": "1m"}},
		{"path_prefix": "/impatient", "backend": "impatient"}
	], "backends": [
		{"name": "b", "dial": ["`+dial+`"]},
		{"name": "impatient", "dial": ["`+dial+`"], "timeouts": {"first_byte": "30ms", "total": "35ms"}}
	]}`)
	url := serve(t, g, new(caddyhttp.Server))
	for target, want := range map[string]int{
		"/?delay=200ms": 200, "/first?delay=1m": 504, "/first": 200, "/again?delay=1m": 504, "/total?delay=1m": 504, "/total": 200,
		"/patient?delay=200ms": 200, "/impatient?delay=1m": 504,
	} {
		response, err := http.Get(url + target)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: got %d, want %d", target, response.StatusCode, want)
		}
	}
	if n := len(g.backendNamed("b").transport.limited); n != 1 {
		t.Errorf("there are %d transports for routes with limits of their own, want 1", n)
	}
}
