package gateway

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/testkit"
)

// within6Sigma reports whether got successes in n draws, each with probability p, are
// within six standard deviations. Chance exceeds them once in five hundred million
// runs.
func within6Sigma(got, n int, p float64) bool {
	return math.Abs(float64(got)-float64(n)*p) <= 6*math.Sqrt(float64(n)*p*(1-p))
}

func splitting(sticky string, weights ...int) *Route {
	rt := &Route{StickyKey: sticky}
	for i, weight := range weights {
		rt.Backends = append(rt.Backends, &Share{Name: fmt.Sprintf("b%d", i), Weight: weight})
	}
	rt.weighted = rt.newWeightedBackends()
	return rt
}

func TestSharesAreInProportion(t *testing.T) {
	const n = 10_000
	for _, weights := range [][]int{{95, 5}, {5, 95}, {1, 1, 1}, {50, 45, 5}, {1, 0, 3}, {0, 7}, {maxWeight, maxWeight}} {
		total := 0
		for _, weight := range weights {
			total += weight
		}
		for _, sticky := range []string{"", "{http.request.header.X-User}"} {
			rt, counts := splitting(sticky, weights...), make(map[string]int)
			r := caddyhttp.PrepareRequest(httptest.NewRequest("GET", "/", nil), caddy.NewReplacer(), nil, nil)
			for i := range n {
				r.Header.Set("X-User", fmt.Sprint("user-", i))
				counts[rt.chooseBackend(r).backend]++
			}
			for i, weight := range weights {
				got, p := counts[rt.weighted[i].backend], float64(weight)/float64(total)
				if !within6Sigma(got, n, p) {
					t.Errorf("weights %v, key %q: share %d got %d of %d requests, want %.0f", weights, sticky, i, got, n, n*p)
				}
			}
		}
	}
}

// If the weight of a backend grows, or a backend is added, keys move only to that
// backend. If the weight shrinks, or the backend is removed, keys move only from it.
func TestKeysMoveOnlyIntoAShareThatGrows(t *testing.T) {
	const n = 10_000
	for _, test := range []struct {
		before, after []int
		grown         int
		moved         float64
	}{
		{[]int{95, 5}, []int{95, 20}, 1, 20./115 - 5./100},
		{[]int{95, 5}, []int{190, 5}, 0, 190./195 - 95./100},
		{[]int{50, 45, 5}, []int{50, 45, 20}, 2, 20./115 - 5./100},
		{[]int{50, 45, 5}, []int{50, 90, 5}, 1, 90./145 - 45./100},
		{[]int{50, 45}, []int{50, 45, 5}, 2, 5. / 100},
		{[]int{50, 0, 5}, []int{50, 45, 5}, 1, 45. / 100},
		{[]int{1, 1, 1}, []int{7, 7, 7}, 0, 0},
	} {
		before, after := splitting("{key}", test.before...), splitting("{key}", test.after...)
		grown, moved := after.weighted[test.grown].backend, 0
		for i := range n {
			key := fmt.Sprint("session-", i)
			from, to := before.rendezvous(key).backend, after.rendezvous(key).backend
			if from == to {
				continue
			}
			if moved++; to != grown {
				t.Fatalf("%v to %v: key %s went from %s to %s, and %s has grown", test.before, test.after, key, from, to, grown)
			}
		}
		if !within6Sigma(moved, n, test.moved) {
			t.Errorf("%v to %v: %d keys of %d moved, want %.0f", test.before, test.after, moved, n, n*test.moved)
		}
	}
}

func TestKeysDoNotDependOnTheOrderOfShares(t *testing.T) {
	one, other := splitting("{key}", 3, 2, 1), splitting("{key}", 3, 2, 1)
	other.weighted[0], other.weighted[2] = other.weighted[2], other.weighted[0]
	for i := range 1000 {
		key := fmt.Sprint(i)
		if a, b := one.rendezvous(key).backend, other.rendezvous(key).backend; a != b {
			t.Fatalf("key %s is of %s and %s", key, a, b)
		}
	}
}

func TestStickyRequests(t *testing.T) {
	names := make(map[string]string)
	dial := func(name string) string {
		address, _ := testkit.Backend(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name) })
		names[name] = address
		return quoted(address)
	}
	g := start(t, fmt.Sprintf(`{
		"routes": [
			{"path_prefix": "/chance", "backends": [{"name": "a", "weight": 1}, {"name": "b", "weight": 1}]},
			{"path_prefix": "/users/:id", "backends": [{"name": "a", "weight": 1}, {"name": "b", "weight": 1}], "sticky_key": "{http.rgate.param.id}"},
			{"path_prefix": "/cookie", "backends": [{"name": "a", "weight": 1}, {"name": "b", "weight": 1}], "sticky_key": "{http.request.cookie.session}",
				"handle": [{"handler": "headers", "response": {"set": {"X-Backend": ["{http.rgate.backend}"]}}}]}
		],
		"backends": [{"name": "a", "dial": [%s]}, {"name": "b", "dial": [%s]}]
	}`, dial("a"), dial("b")))
	url := serve(t, g, &caddyhttp.Server{})

	reached := func(path string, header ...string) map[string]int {
		counts := make(map[string]int)
		for range 40 { // one of two backends is never chosen in one of 10¹² runs
			counts[get(t, "GET", url+path, header...).body]++
		}
		return counts
	}
	for _, spread := range []map[string]int{reached("/chance"), reached("/cookie"), reached("/cookie", "Cookie", "session=")} {
		if len(spread) != 2 {
			t.Errorf("without a key: got %v, want both", spread)
		}
	}
	all := make(map[string]bool)
	for i := range 20 {
		for _, counts := range []map[string]int{
			reached(fmt.Sprint("/users/", i)), reached("/cookie", "Cookie", fmt.Sprint("session=", i)),
		} {
			if len(counts) != 1 {
				t.Errorf("key %d: got %v, want one", i, counts)
			}
			for name := range counts {
				all[name] = true
			}
		}
	}
	if len(all) != 2 {
		t.Errorf("20 keys reached only %v", all)
	}
	if got := get(t, "GET", url+"/cookie", "Cookie", "session=1"); got.header.Get("X-Backend") != got.body {
		t.Errorf("the placeholder says %q, but it was %q", got.header.Get("X-Backend"), got.body)
	}
}

func BenchmarkShareOf(b *testing.B) {
	rt := splitting("{key}", 50, 45, 5)
	b.ReportAllocs()
	for b.Loop() {
		rt.rendezvous("1f0b2c7e-5d43-4d7e-9b0a-8a1d5f1f7c11")
	}
}
