package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rgate/rgate/internal/testkit"
)

// redisServer is a redis-server process on the loopback interface, without persistence.
type redisServer struct {
	port int
	cmd  *exec.Cmd
}

func startRedis(t testing.TB) *redisServer {
	t.Helper()
	s := &redisServer{port: freePort(t)}
	s.start(t)
	t.Cleanup(s.kill)
	return s
}

func (s *redisServer) start(t testing.TB) {
	t.Helper()
	testkit.RequireProgram(t, "redis-server")
	s.cmd = exec.Command("redis-server", "--port", strconv.Itoa(s.port), "--bind", "127.0.0.1",
		"--dir", t.TempDir(), "--save", "", "--appendonly", "no")
	dieWithTests(s.cmd)
	must(t, "starting redis-server", s.cmd.Start())
	testkit.Eventually(t, "redis-server listens", func() bool {
		conn, err := net.Dial("tcp", s.address())
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func (s *redisServer) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

func (s *redisServer) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // Wait returns an error for a killed process
}

// staticBackend starts a backend with a constant response and returns its address.
func staticBackend(t testing.TB) string {
	address, _ := testkit.Backend(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("hello"))
	})
	return address
}

// limited returns a configuration with a static backend. policies are YAML lines of the
// gateway, and each route is the YAML of one route.
func limited(t testing.TB, policies string, routes ...string) string {
	config := policies + "\nroutes:\n"
	for _, route := range routes {
		config += "  - {backend: web, " + route + "}\n"
	}
	return config + "backends: [{name: web, dial: [\"" + staticBackend(t) + "\"]}]\n"
}

// statuses sends requests from concurrent clients and returns the number of responses by
// status.
func (g *gateway) statuses(t testing.TB, requests int, target string, headers ...string) map[int]int {
	t.Helper()
	const clients = 4
	var mu sync.Mutex
	var all sync.WaitGroup
	tally := make(map[int]int)
	for i := range clients {
		all.Go(func() {
			for n := i; n < requests; n += clients {
				got, err := do(g.client, g.request(t, http.MethodGet, target, "", headers...))
				mu.Lock()
				if tally[got.status]++; err != nil {
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return tally
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	config := limited(t, `rate_limit: {requests: 1000, window: 60s, key: "{http.request.header.X-User}"}`,
		"path_prefix: /a", "path_prefix: /b",
		"path_prefix: /c, rate_limit: {requests: 2, window: 1h}", "path_prefix: /d, rate_limit: {requests: 2, window: 1h}",
		"path_prefix: /e, rate_limit: false",
		"path_prefix: /f, rate_limit: {limits: [{requests: 3, window: 1h}, {requests: 2, window: 10m}]}")
	g := startGateway(t, config)
	began := time.Now()
	for _, path := range []string{"/a", "/b"} { // share the gateway's limit
		if got := g.statuses(t, 500, path, "X-User", "alice"); got[200] != 500 {
			t.Errorf("500 requests of 1000: %v", got)
		}
	}
	refused := func(when string) {
		t.Helper()
		got := g.ask(t, "GET", "/a", "", "X-User", "alice")
		least := int((60*time.Second - time.Since(began)) / time.Second)
		retry, _ := strconv.Atoi(got.header.Get("Retry-After"))
		if got.status != http.StatusTooManyRequests || retry < least || retry > 60 {
			t.Errorf("%s: got %d, and again after %d s", when, got.status, retry)
		}
		if got.header.Get("RateLimit-Limit") != "1000" || got.header.Get("RateLimit-Remaining") != "0" || got.header.Get("RateLimit-Reset") != got.header.Get("Retry-After") {
			t.Errorf("%s: got %v", when, got.header)
		}
		if got.header.Get("Content-Type") != "application/json" || got.body != `{"error":"Too Many Requests","status":429}` {
			t.Errorf("%s: got %q", when, got.body)
		}
	}
	refused("request 1001")
	if got := g.ask(t, "GET", "/a", "", "X-User", "bob"); got.status != http.StatusOK || got.header.Get("RateLimit-Remaining") != "999" {
		t.Errorf("another identity: got %d, %v", got.status, got.header)
	}
	for _, path := range []string{"/c", "/d"} { // have separate limits
		if got := g.statuses(t, 5, path); got[200] != 2 || got[429] != 3 {
			t.Errorf("%s: got %v", path, got)
		}
	}
	if got := g.ask(t, "GET", "/e", "", "X-User", "alice"); got.status != http.StatusOK || got.header.Get("RateLimit-Limit") != "" {
		t.Errorf("without a limit: got %d, %v", got.status, got.header)
	}
	if got := g.statuses(t, 5, "/f"); got[200] != 2 || got[429] != 3 {
		t.Errorf("several limits: got %v", got)
	}
	if got := g.metric(t, "rgate_refused_requests_total", "policy", "rate_limit", "route", "/a", "code", "429"); got != 1 {
		t.Errorf("the metric counts %v refusals", got)
	}

	g.write(t, config+"default_response: {status_code: 410}\nadmin: localhost:$ADMIN\n")
	g.reload(t)
	g.awaitStatus(t, "/", http.StatusGone)
	refused("after a reload")
	if got := g.get(t, "/c").status; got != http.StatusTooManyRequests {
		t.Errorf("the limit of a route, after a reload: got %d", got)
	}
}

// A client that waits for Retry-After is admitted, and an earlier request is rejected.
func TestRetryAfterIsRight(t *testing.T) {
	t.Parallel()
	g := startGateway(t, limited(t, `rate_limit: {requests: 5, window: 2s}`, "path_prefix: /"))
	began := time.Now()
	if got := g.statuses(t, 5, "/"); got[200] != 5 {
		t.Fatalf("got %v", got)
	}
	got := g.get(t, "/")
	refusedAt := time.Now()
	retry, _ := strconv.Atoi(got.header.Get("Retry-After"))
	if got.status != http.StatusTooManyRequests || retry < 1 || retry > 2 {
		t.Fatalf("got %d, and again after %d s", got.status, retry)
	}
	testkit.Eventually(t, "it is let in", func() bool { return g.get(t, "/").status == http.StatusOK })
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("it is let in %v after the first of five in two seconds", took)
	}
	if took := time.Since(refusedAt); took > time.Duration(retry)*time.Second+patience/4 {
		t.Errorf("it was to wait %d s, and waited %v", retry, took)
	}
}

func TestTwoGatewaysAdmitExactlyTheLimitTogether(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	config := limited(t, fmt.Sprintf(`rate_limit: {requests: 1000, window: 1h, redis: "redis://%s/0", redis_timeout: 10s}`, redis.address()), "path_prefix: /")
	gateways := []*gateway{startGateway(t, config), startGateway(t, config)}
	var both sync.WaitGroup
	var mu sync.Mutex
	tally := make(map[int]int)
	for _, g := range gateways {
		both.Go(func() {
			for status, n := range g.statuses(t, 800, "/") {
				mu.Lock()
				tally[status] += n
				mu.Unlock()
			}
		})
	}
	both.Wait()
	if tally[200] != 1000 || tally[429] != 600 {
		t.Errorf("got %v, want 1000 of 1600 to be admitted", tally)
	}
	for i, g := range gateways {
		if errors := g.metric(t, "rgate_rate_limit_redis_errors_total"); errors != 0 {
			t.Errorf("gateway %d counts %v errors of redis", i, errors)
		}
	}
}

// If Redis is killed, no request fails, and limits are still enforced.
func TestRedisIsKilledUnderLoad(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	limit := func(requests int) string {
		// The long timeout prevents a slow machine from being counted as an outage.
		return fmt.Sprintf(`rate_limit: {requests: %d, window: 1h, redis: "redis://%s", redis_timeout: 10s, key: "{http.request.header.X-User}"}`, requests, redis.address())
	}
	g := startGateway(t, limited(t, "", "path_prefix: /many, "+limit(1_000_000), "path_prefix: /few, "+limit(3)))
	load := g.startTraffic(t, 4, "/many")
	load.awaitMore(t, "200", 100)
	for round := range 2 {
		redis.kill()
		testkit.Eventually(t, "redis is seen to be away", func() bool { return g.metric(t, "rgate_rate_limit_redis_up") == 0 })
		load.awaitMore(t, "200", 300)
		user := fmt.Sprintf("user-%d", round)
		if got := g.statuses(t, 8, "/few", "X-User", user); got[200] != 3 || got[429] != 5 {
			t.Errorf("without redis: got %v, want 3 to be admitted", got)
		}
		redis.start(t)
		testkit.Eventually(t, "redis is used again", func() bool { return g.metric(t, "rgate_rate_limit_redis_up") == 1 })
		load.awaitMore(t, "200", 100)
	}
	only(t, load.stop(), "200")
	for message, want := range map[string]int{"redis is unavailable": 2, "redis is available again": 2} {
		if n := strings.Count(g.output.String(), message); n != want {
			t.Errorf("the log says %d times that %s, want %d", n, message, want)
		}
	}
	if fallbacks := g.metric(t, "rgate_rate_limit_redis_fallbacks_total"); fallbacks < 600 {
		t.Errorf("the metric counts %v decisions without redis", fallbacks)
	}
}

func TestThrottle(t *testing.T) {
	t.Parallel()
	g := startGateway(t, limited(t, "", "path_prefix: /slow, throttle: {requests: 20, window: 1s}",
		`path_prefix: /full, throttle: {requests: 1, window: 1h, queue: 1, max_wait: 2h}`))
	began := time.Now()
	if got := g.statuses(t, 11, "/slow"); got[200] != 11 {
		t.Errorf("got %v", got)
	}
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("11 requests at 20 per second took %v", took)
	}

	if got := g.get(t, "/full").status; got != http.StatusOK {
		t.Errorf("the first: got %d", got)
	}
	waiting := func() float64 { return g.metric(t, "rgate_throttle_waiting_requests") }
	for range 2 { // the second request uses the queue slot of the canceled first one
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error)
		request := g.request(t, http.MethodGet, "/full", "").WithContext(ctx)
		go func() {
			_, err := do(g.client, request)
			left <- err
		}()
		testkit.Eventually(t, "a request waits", func() bool { return waiting() == 1 })
		got := g.get(t, "/full")
		if retry, _ := strconv.Atoi(got.header.Get("Retry-After")); got.status != http.StatusTooManyRequests || retry < 3500 || retry > 3600 {
			t.Errorf("with a full queue: got %d, %v", got.status, got.header)
		}
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the one that left: got %v", err)
		}
		testkit.Eventually(t, "its place is free", func() bool { return waiting() == 0 })
	}
}
