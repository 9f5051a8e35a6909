package gateway

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func TestRetriesEndWithTheirBudget(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	down := httptest.NewServer(nil)
	down.Close()
	g := start(t, `{"legacy": ["ignored_failed_dials"], "routes": [{"path_prefix": "/", "backend": "b"}], "backends": [{"name": "b",
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
}
