package balance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/dockerupstreams"
	"github.com/rgate/rgate/internal/placeholder"
	"github.com/rgate/rgate/internal/testkit"
)

func TestSameKeySameUpstream(t *testing.T) {
	p := testkit.Provision(t, &RingHash{Key: byUser})
	pool := upstreams(5)
	used := make(map[*reverseproxy.Upstream]bool)
	for i := range 200 {
		first := p.Select(pool, user(t, i), nil)
		used[first] = true
		for range 3 {
			if again := p.Select(pool, user(t, i), nil); again != first {
				t.Fatalf("user %d went to %s, then to %s", i, first, again)
			}
		}
	}
	if len(used) != len(pool) {
		t.Errorf("%d of %d upstreams were used", len(used), len(pool))
	}
}

func TestKeys(t *testing.T) {
	r := request(t, "X-User", "alice", "Cookie", "session=s3")
	caddyhttp.SetVar(r.Context(), caddyhttp.ClientIPVarKey, "192.0.2.7")
	for key, want := range map[string]string{
		byUser:                          "alice",
		placeholder.ClientIP:            "192.0.2.7",
		"{http.request.cookie.session}": "s3",
		"{http.request.uri.path}":       "/orders/7",
		"{http.request.host}/{http.request.header.X-User}": "example.com/alice",
		"u{http.request.header.X-User}":                    "ualice",
		"{http.request.header.X-None}":                     "",
		"{http.auth.user.id}":                              "",
		"{un.known}{un.known}":                             "",
	} {
		k := placeholder.ParseKey(key)
		if got := k.Of(r); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	for address, want := range map[string]string{
		"192.0.2.7:1234": "192.0.2.7", "[2001:db8::7]:1234": "2001:db8::7", "2001:db8::7": "2001:db8::7", "": "",
	} {
		caddyhttp.SetVar(r.Context(), caddyhttp.ClientIPVarKey, address)
		k := placeholder.ParseKey(placeholder.ClientIP)
		if got := k.Of(r); got != want {
			t.Errorf("client %q: got %q, want %q", address, got, want)
		}
	}
	k := placeholder.ParseKey(byUser)
	if got := k.Of(new(http.Request).WithContext(context.Background())); got != "" {
		t.Errorf("without placeholders: got %q", got)
	}
}

func TestEmptyKeysGoAnywhere(t *testing.T) {
	p := testkit.Provision(t, &RingHash{Key: byUser})
	pool := upstreams(4)
	setAvailable(t, pool[2], false)
	used := make(map[*reverseproxy.Upstream]int)
	for range 3000 {
		used[p.Select(pool, request(t), nil)]++
	}
	for i, u := range pool {
		if n := used[u]; i != 2 && (n < 800 || n > 1200) || i == 2 && n > 0 {
			t.Errorf("upstream %d was used %d times", i, n)
		}
	}
}

func TestUnavailableUpstreamsArePassedOver(t *testing.T) {
	p := testkit.Provision(t, &RingHash{Key: byUser})
	pool := upstreams(5)
	own := make([]*reverseproxy.Upstream, 500)
	for i := range own {
		own[i] = p.Select(pool, user(t, i), nil)
	}
	setAvailable(t, pool[3], false)
	moved := make(map[*reverseproxy.Upstream]bool)
	for i, before := range own {
		now := p.Select(pool, user(t, i), nil)
		switch {
		case now == pool[3]:
			t.Fatal("an unavailable upstream was selected")
		case before == pool[3]:
			moved[now] = true
		case now != before:
			t.Fatalf("user %d moved from %s to %s", i, before, now)
		}
	}
	if len(moved) != 4 {
		t.Errorf("the keys of one upstream went to %d others", len(moved))
	}
	setAvailable(t, pool[3], true)
	for i, before := range own {
		if now := p.Select(pool, user(t, i), nil); now != before {
			t.Fatalf("user %d did not come back to %s, but is with %s", i, before, now)
		}
	}
}

// TestRetriesGoRoundTheRing checks that retries use the same ring, even if the proxy
// offers only upstreams that the request has not tried.
func TestRetriesGoRoundTheRing(t *testing.T) {
	all := upstreams(6)
	p := testkit.Provision(t, &RingHash{Key: byUser})
	p.proxy = &reverseproxy.Handler{Upstreams: all}
	var ring *placement
	for i := range 200 {
		left := slices.Clone(all)
		for attempt := range all {
			chosen := p.Select(left, user(t, i), nil)
			if ring == nil {
				ring = p.placed.Load()
			}
			at := slices.Index(left, chosen)
			if at < 0 {
				t.Fatalf("attempt %d of user %d has nowhere to go", attempt, i)
			}
			// The choice equals the choice without the tried upstreams.
			if i < 5 {
				if want := testkit.Provision(t, &RingHash{Key: byUser}).Select(left, user(t, i), nil); chosen != want {
					t.Fatalf("attempt %d of user %d went to %s, not to %s", attempt, i, chosen, want)
				}
			}
			left = slices.Delete(left, at, at+1)
		}
		if p.Select(left, user(t, i), nil) != nil {
			t.Fatal("something was selected of nothing")
		}
	}
	if p.placed.Load() != ring {
		t.Error("the ring was created again")
	}
}

// dockerSource is an upstream source whose containers tests can replace.
type dockerSource struct{ set *dockerupstreams.Set }

func (s *dockerSource) Set() *dockerupstreams.Set { return s.set }

func (s *dockerSource) GetUpstreams(*http.Request) ([]*reverseproxy.Upstream, error) {
	upstreams := dockerupstreams.Upstreams(s.set.Targets)
	for _, u := range upstreams {
		u.Host = new(reverseproxy.Host) // as the proxy does
	}
	return upstreams, nil
}

func containers(targets ...dockerupstreams.Target) *dockerupstreams.Set {
	return &dockerupstreams.Set{Targets: targets}
}

func selectContainer(t *testing.T, p *RingHash, source *dockerSource, r *http.Request) string {
	t.Helper()
	pool, _ := source.GetUpstreams(r)
	chosen := p.Select(pool, r, nil)
	if chosen == nil {
		t.Fatal("nothing was selected")
	}
	return source.set.ByDial(chosen.Dial).Container
}

func TestContainersMadeAnewKeepTheirKeys(t *testing.T) {
	source := &dockerSource{containers(
		dockerupstreams.Target{Container: "web-1", Dial: "172.17.0.2:80", Weight: 1},
		dockerupstreams.Target{Container: "web-2", Dial: "172.17.0.3:80", Weight: 1},
		dockerupstreams.Target{Container: "web-3", Dial: "172.17.0.4:80", Weight: 1},
	)}
	p := testkit.Provision(t, &RingHash{Key: byUser})
	p.proxy = &reverseproxy.Handler{DynamicUpstreams: source}
	var before []string
	for i := range 300 {
		before = append(before, selectContainer(t, p, source, user(t, i)))
	}
	ring := p.placed.Load().ring
	// One container gets a new address, and two swap addresses.
	source.set = containers(
		dockerupstreams.Target{Container: "web-1", Dial: "172.17.0.3:80", Weight: 1},
		dockerupstreams.Target{Container: "web-2", Dial: "172.17.0.2:80", Weight: 1},
		dockerupstreams.Target{Container: "web-3", Dial: "172.17.0.9:8080", Weight: 1},
	)
	for i, want := range before {
		if got := selectContainer(t, p, source, user(t, i)); got != want {
			t.Fatalf("user %d moved from %s to %s", i, want, got)
		}
	}
	if p.placed.Load().ring != ring {
		t.Error("the ring was created again although only addresses have changed")
	}
	source.set = containers(source.set.Targets[:2]...)
	for i, was := range before {
		if got := selectContainer(t, p, source, user(t, i)); was != "web-3" && got != was {
			t.Fatalf("user %d moved from %s to %s when web-3 left", i, was, got)
		}
	}
}

func TestWeightLabelsCount(t *testing.T) {
	source := &dockerSource{containers(
		dockerupstreams.Target{Container: "web-1", Dial: "172.17.0.2:80", Weight: 1},
		dockerupstreams.Target{Container: "web-2", Dial: "172.17.0.3:80", Weight: 3},
	)}
	p := testkit.Provision(t, &RingHash{Key: byUser})
	p.proxy = &reverseproxy.Handler{DynamicUpstreams: source}
	heavy := 0
	for i := range 4000 {
		if selectContainer(t, p, source, user(t, i)) == "web-2" {
			heavy++
		}
	}
	if heavy < 2800 || heavy > 3200 {
		t.Errorf("%d of 4000 keys are with the container of weight 3 of 4", heavy)
	}
}

// TestPoolOlderThanTheSet checks the selection from a pool whose containers are no longer
// in the current set of the source.
func TestPoolOlderThanTheSet(t *testing.T) {
	source := &dockerSource{containers(dockerupstreams.Target{Container: "new", Dial: "172.17.0.9:80", Weight: 1})}
	p := testkit.Provision(t, &RingHash{Key: byUser})
	p.proxy = &reverseproxy.Handler{DynamicUpstreams: source}
	pool := reverseproxy.UpstreamPool{upstreamAt("172.17.0.2:80"), upstreamAt("172.17.0.3:80")}
	for i := range 50 {
		if got := p.Select(pool, user(t, i), nil); got == nil {
			t.Fatal("available upstreams, and none was selected")
		}
	}
	source.set = containers()
	if got := p.Select(nil, user(t, 1), nil); got != nil {
		t.Errorf("%s was selected of nothing", got)
	}
}

// TestRingFollowsAnyPool checks a list of upstreams that a source creates for each
// request.
func TestRingFollowsAnyPool(t *testing.T) {
	p := testkit.Provision(t, &RingHash{Key: byUser})
	before := p.Select(upstreams(3), user(t, 1), nil).Dial
	first := p.placed.Load()
	if after := p.Select(upstreams(3), user(t, 1), nil).Dial; after != before || p.placed.Load() != first {
		t.Errorf("equal pools: %s, then %s, and a new ring: %t", before, after, p.placed.Load() != first)
	}
	used := make(map[string]bool)
	for i := range 300 {
		used[p.Select(upstreams(8), user(t, i), nil).Dial] = true
	}
	if len(used) != 8 {
		t.Errorf("%d of 8 upstreams are used after the pool grew", len(used))
	}
}

func TestHotKeysSpillOver(t *testing.T) {
	p := testkit.Provision(t, &RingHash{Key: byUser, LoadFactor: 1.25})
	pool := upstreams(10)
	ctx, end := context.WithCancel(t.Context())
	hot := func() *http.Request { r := user(t, 1); return r.WithContext(joined{r.Context(), ctx}) }
	inFlight := make(map[*reverseproxy.Upstream]int)
	var own *reverseproxy.Upstream
	for m := 1; m <= 100; m++ {
		chosen := p.Select(pool, hot(), nil)
		if own == nil {
			own = chosen
		}
		if inFlight[chosen]++; inFlight[chosen] > (5*m+39)/40 { // ceil(1.25 m / 10)
			t.Fatalf("request %d: %s has %d, more than its bound", m, chosen, inFlight[chosen])
		}
	}
	if inFlight[own] != 13 {
		t.Errorf("the key's own upstream has %d of 100 requests, not 13", inFlight[own])
	}
	end()
	testkit.Eventually(t, "all requests are over", p.isIdle)
	if back := p.Select(pool, user(t, 1), nil); back != own {
		t.Errorf("when all is over, the key is with %s and not with %s", back, own)
	}
}

// joined has the values of one context and is canceled with another.
type joined struct {
	values context.Context
	context.Context
}

func (j joined) Value(key any) any { return j.values.Value(key) }

// isIdle reports whether no request is reserved.
func (p *RingHash) isIdle() bool {
	p.taken.mu.Lock()
	defer p.taken.mu.Unlock()
	return len(p.taken.byDial) == 0
}

// TestRetriesGiveTheirPlaceBack checks that a request counts only for its latest
// upstream, and for none after it has ended.
func TestRetriesGiveTheirPlaceBack(t *testing.T) {
	p := testkit.Provision(t, &RingHash{Key: byUser, LoadFactor: 1.25})
	pool := upstreams(5)
	ctx, end := context.WithCancel(t.Context())
	r := user(t, 1)
	r = r.WithContext(joined{r.Context(), ctx})
	for _, left := range []reverseproxy.UpstreamPool{pool, pool[1:], pool[2:]} {
		chosen := p.Select(left, r, nil)
		p.taken.mu.Lock()
		if len(p.taken.byDial) != 1 || p.taken.byDial[chosen.Dial] != 1 {
			t.Errorf("at %s, the request counts for %v", chosen, p.taken.byDial)
		}
		p.taken.mu.Unlock()
	}
	end()
	testkit.Eventually(t, "the request counts for none", p.isIdle)
}

// TestTheBoundHoldsForRequestsAtOnce checks that concurrent requests do not exceed the
// bound.
func TestTheBoundHoldsForRequestsAtOnce(t *testing.T) {
	const nodes, requests, bound = 10, 200, 25 // ceil(1.25 · 200 / 10)
	var under [nodes]atomic.Int64
	var arrived sync.WaitGroup
	arrived.Add(requests)
	release := make(chan struct{})
	var dials []string
	for i := range nodes {
		dial, _ := testkit.Backend(t, func(http.ResponseWriter, *http.Request) {
			under[i].Add(1)
			arrived.Done()
			<-release
		})
		dials = append(dials, fmt.Sprintf(`{"dial": %q}`, dial))
	}
	url := serve(t, handler(t, "http.handlers.reverse_proxy", fmt.Sprintf(
		`{"upstreams": [%s], "load_balancing": {"selection_policy": {"policy": "ring_hash", "key": "{http.request.header.X-User}", "load_factor": 1.25}}}`,
		strings.Join(dials, ","))))
	var done sync.WaitGroup
	zipf := rand.NewZipf(rand.New(rand.NewPCG(3, 4)), 1.3, 1, 1000)
	for range requests {
		user := fmt.Sprint(zipf.Uint64())
		done.Go(func() { get(t, url, "X-User", user) })
	}
	arrived.Wait()
	most := int64(0)
	for i := range under {
		most = max(most, under[i].Load())
	}
	close(release)
	done.Wait()
	if most > bound {
		t.Errorf("one of %d upstreams has %d of %d requests, more than %d", nodes, most, requests, bound)
	}
}

// TestRingHashSelectsWhatIsAvailable checks that only available upstreams are selected,
// and always one if any is available.
func TestRingHashSelectsWhatIsAvailable(t *testing.T) {
	for _, factor := range []float64{0, 1.01, 1.25, 3} {
		selectsWhatIsAvailable(t, testkit.Provision(t, &RingHash{Key: byUser, LoadFactor: factor}))
	}
}

func selectsWhatIsAvailable(t *testing.T, policy reverseproxy.Selector) {
	t.Helper()
	all := upstreams(100)
	for range 2000 {
		pool := all[:rand.IntN(len(all)+1)]
		if rand.IntN(2) == 0 { // as on a retry
			pool = slices.DeleteFunc(slices.Clone(pool), func(*reverseproxy.Upstream) bool { return rand.IntN(3) == 0 })
		}
		available, most := 0, rand.IntN(4)
		for _, u := range pool {
			u.MaxRequests = 1 + rand.IntN(3)
			occupy(t, u, rand.IntN(most+1))
			if u.Available() {
				available++
			}
		}
		chosen := policy.Select(pool, user(t, rand.IntN(1000)), nil)
		if (chosen == nil) != (available == 0) {
			t.Fatalf("%d of %d are available, selected was %v", available, len(pool), chosen)
		}
		if chosen != nil && (!chosen.Available() || !slices.Contains(pool, chosen)) {
			t.Fatalf("%s was selected, which is not available", chosen)
		}
	}
}

func TestRingHashConcurrently(t *testing.T) {
	sets := []*dockerupstreams.Set{
		containers(dockerupstreams.Target{Container: "a", Dial: "10.0.0.1:80", Weight: 1}, dockerupstreams.Target{Container: "b", Dial: "10.0.0.2:80", Weight: 1}),
		containers(dockerupstreams.Target{Container: "a", Dial: "10.0.0.3:80", Weight: 2}, dockerupstreams.Target{Container: "c", Dial: "10.0.0.4:80", Weight: 1}),
	}
	p := testkit.Provision(t, &RingHash{Key: byUser, LoadFactor: 1.5})
	p.proxy = &reverseproxy.Handler{DynamicUpstreams: &changing{sets: sets}}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 500 {
				pool, _ := (&dockerSource{sets[rand.IntN(2)]}).GetUpstreams(nil)
				if p.Select(pool, user(t, i), nil) == nil {
					t.Error("nothing was selected")
					return
				}
			}
		})
	}
	wg.Wait()
}

// changing is an upstream source that returns a new set on every call.
type changing struct {
	dockerSource
	sets []*dockerupstreams.Set
}

func (s *changing) Set() *dockerupstreams.Set { return s.sets[rand.IntN(len(s.sets))] }
