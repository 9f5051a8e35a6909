package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/network"

	"github.com/rgate/rgate/internal/testkit"
)

// wantDown checks that the response reports an unavailable backend.
func wantDown(t *testing.T, what string, got response) {
	t.Helper()
	if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") != "1" || got.length == 0 {
		t.Errorf("%s: got %d, Retry-After %q and %d bytes, want 503, 1 and a short body",
			what, got.status, got.header.Get("Retry-After"), got.length)
	}
}

// unassigned returns an unused address of the default network.
func unassigned(t *testing.T) string {
	t.Helper()
	requireEngine(t)
	about, err := engine.NetworkInspect(t.Context(), "bridge", network.InspectOptions{})
	must(t, "inspecting the default network", err)
	_, subnet, err := net.ParseCIDR(about.IPAM.Config[0].Subnet)
	must(t, "reading its subnet", err)
	last := subnet.IP.To4()
	for i, bits := range subnet.Mask {
		last[i] |= ^bits
	}
	last[3]-- // the last address is the broadcast address
	return last.String()
}

func TestBackendThatIsDownIs503(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{labels: map[string]string{"role": "drops"}})
	startContainer(t, spec{labels: map[string]string{"role": "drops"}})
	// Nothing listens on this port.
	startContainer(t, spec{labels: map[string]string{"role": "refuses", "rgate.port": "8081"}})
	startContainer(t, spec{labels: map[string]string{"role": "never-started"}, created: true})
	g := startGateway(t, strings.ReplaceAll(`
routes:
  - {path_prefix: /none, backend: none}
  - {path_prefix: /never-started, backend: never-started}
  - {path_prefix: /refuses, backend: refuses}
  - {path_prefix: /drops, backend: drops}
  - {path_prefix: /times-out, backend: times-out}
  - {path_prefix: /no-way, backend: no-way}
backends:
  - {name: none, match_labels: {app_name: $APP, role: none}}
  - {name: never-started, match_labels: {app_name: $APP, role: never-started}}
  - {name: refuses, match_labels: {app_name: $APP, role: refuses}}
  - {name: drops, match_labels: {app_name: $APP, role: drops}}
  - {name: times-out, dial: ["$NOBODY:80"], timeouts: {dial: 100ms}}
  - {name: no-way, dial: ["$NOBODY:80"], timeouts: {dial: 20s}, retries: 0}
`, "$NOBODY", unassigned(t)))
	g.await(t, "drops", 2)
	g.await(t, "refuses", 1)
	for _, target := range []string{"/none", "/never-started", "/refuses", "/drops?drop=1", "/times-out", "/no-way"} {
		for _, method := range []string{"GET", "HEAD", "POST", "DELETE"} {
			body := ""
			if method == "POST" {
				body = "a body"
			}
			wantDown(t, method+" "+target, g.ask(t, method, target, body))
		}
	}
	for accept, want := range map[string]string{
		"":                                   "Service Unavailable\n",
		"*/*":                                "Service Unavailable\n",
		"text/html,application/xhtml+xml":    "Service Unavailable\n",
		"application/json":                   `{"error":"Service Unavailable","status":503}`,
		"text/plain;q=0.1, application/json": `{"error":"Service Unavailable","status":503}`,
		"application/problem+json":           `{"error":"Service Unavailable","status":503}`,
	} {
		got := g.ask(t, "GET", "/none", "", "Accept", accept)
		isJSON := strings.HasPrefix(got.header.Get("Content-Type"), "application/json")
		if got.body != want || isJSON != json.Valid([]byte(want)) {
			t.Errorf("Accept %q: got %q as %q, want %q", accept, got.body, got.header.Get("Content-Type"), want)
		}
	}
}

func TestConnectionLostInFlightIs503(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "POST"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			web := startContainer(t, spec{})
			g := startGateway(t, oneBackend)
			g.await(t, "web", 1)
			responses := make(chan response, 1)
			request := g.request(t, method, "/?delay=1m", "")
			go func() {
				got, err := do(g.client, request)
				if err != nil {
					t.Errorf("the client got no response: %v", err)
				}
				responses <- got
			}()
			testkit.Eventually(t, "the request is in flight", func() bool { return web.counts(t).InFlight == 1 })
			web.kill(t)
			wantDown(t, method+" of a killed container", <-responses)
		})
	}
}

// oneBackend routes all requests to the backend web.
const oneBackend = `
routes: [{path_prefix: /, backend: web}]
backends: [{name: web, match_labels: {app_name: $APP}}]
`

// localBackend is oneBackend with servers of the test in place of containers.
const localBackend = `
routes: [{path_prefix: /, backend: web}]
backends: [{name: web, match_labels: {app_name: $APP}, include: [local_addresses]}]
`

func TestSilenceIs504AndNotRepeated(t *testing.T) {
	t.Parallel()
	two := []*box{startContainer(t, spec{}), startContainer(t, spec{})}
	g := startGateway(t, `
routes:
  - {path_prefix: /first-byte, backend: first-byte}
  - {path_prefix: /total, backend: total}
backends:
  - {name: first-byte, match_labels: {app_name: $APP}, timeouts: {first_byte: 150ms}}
  - {name: total, match_labels: {app_name: $APP}, timeouts: {total: 150ms}}
`)
	g.await(t, "total", 2)
	g.await(t, "first-byte", 2)
	for _, target := range []string{"/first-byte?delay=1m", "/total?delay=1m"} {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			got := g.ask(t, method, target, "", "Accept", "application/json")
			if got.status != http.StatusGatewayTimeout || got.header.Get("Retry-After") != "" {
				t.Errorf("%s %s: got %d with Retry-After %q, want 504 without", method, target, got.status, got.header.Get("Retry-After"))
			}
			if method != "HEAD" && !json.Valid([]byte(got.body)) {
				t.Errorf("%s %s: the body %q is not the JSON that the client accepts", method, target, got.body)
			}
		}
	}
	// Timeouts are not retried: another container would be as slow, and the work of the
	// first one would be lost.
	if got := two[0].counts(t).Total + two[1].counts(t).Total; got != 6 {
		t.Errorf("6 requests that timed out reached containers %d times, want once each", got)
	}
}

func TestNonsenseIs502(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := startGateway(t, oneBackend)
	g.await(t, "web", 1)
	for _, method := range []string{"GET", "POST"} {
		if got := g.ask(t, method, "/?garbage=1", ""); got.status != http.StatusBadGateway {
			t.Errorf("%s: got %d for a response that is not HTTP, want 502", method, got.status)
		}
	}
	// The status is already sent, so the client must detect that the response is
	// incomplete.
	if got, err := do(g.client, g.request(t, "GET", "/?cut=1000", "")); err == nil || got.status != http.StatusOK {
		t.Errorf("got %d and %d bytes without an error for a response that was cut, want 200 and an error", got.status, len(got.body))
	}
}

func TestClientThatLeavesIs499(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{})
	g := startGateway(t, "access_log: true"+oneBackend)
	g.await(t, "web", 1)
	for n, method := range []string{"GET", "POST"} {
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		request := g.request(t, method, "/?delay=1m", "").WithContext(ctx)
		go func() {
			_, err := do(g.client, request)
			left <- err
		}()
		testkit.Eventually(t, "the request is in flight", func() bool { return web.counts(t).InFlight == 1 })
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Fatalf("%s: the client did not leave: %v", method, err)
		}
		testkit.Eventually(t, "the request is counted as an error", func() bool { return g.stats(t, "").Requests.Error == n+1 })
		testkit.Eventually(t, "the backend is left too", func() bool { return web.counts(t).InFlight == 0 })
	}
	if got := g.metric(t, "rgate_requests_total", "code", "499"); got != 2 {
		t.Errorf("%v requests have code 499 in the metrics, want 2", got)
	}
	if got := strings.Count(g.output.String(), `"status": 499`) + strings.Count(g.output.String(), `"status":499`); got != 2 {
		t.Errorf("%d lines of the access log have status 499, want 2", got)
	}
	if got := web.counts(t).Total; got != 2 {
		t.Errorf("the container saw %d requests, want 2", got)
	}
}

// A truncated upload is a client error, not a backend failure.
func TestUploadThatBreaksOffIs499(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{})
	g := startGateway(t, oneBackend)
	g.await(t, "web", 1)
	const times = 10
	for n := range times {
		conn, err := net.Dial("tcp", g.address())
		must(t, "connecting", err)
		_, err = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n%5000d", n)
		must(t, "sending a part", err)
		testkit.Eventually(t, "the part is at the backend", func() bool { return web.counts(t).InFlight == 1 })
		if n%2 == 0 {
			must(t, "asking for a reset", conn.(*net.TCPConn).SetLinger(0))
		}
		must(t, "leaving", conn.Close())
		testkit.Eventually(t, "the backend is left too", func() bool { return web.counts(t).InFlight == 0 })
	}
	testkit.Eventually(t, "all are counted", func() bool { return g.stats(t, "").Requests.Error == times })
	if got := g.metric(t, "rgate_requests_total", "code", "499"); got != times {
		t.Errorf("%v requests have code 499, want %d", got, times)
	}
	if got := g.stats(t, "").Bandwidth; got.EgressBody != 0 {
		t.Errorf("%+v went to clients that were gone", got)
	}
}

// bodies maps methods to request bodies.
var bodies = map[string]string{"GET": "", "HEAD": "", "OPTIONS": "", "POST": "12345", "PUT": "12345", "PATCH": "12345", "DELETE": ""}

func TestFailedDialIsRetriedElsewhereWithAnyMethod(t *testing.T) {
	t.Parallel()
	good := startContainer(t, spec{})
	// Nothing listens on these ports.
	startContainer(t, spec{labels: map[string]string{"rgate.port": "8081"}})
	startContainer(t, spec{labels: map[string]string{"rgate.port": "8082"}})
	g := startGateway(t, oneBackend)
	g.await(t, "web", 3)
	const each = 30
	for method, body := range bodies {
		for range each {
			got := g.ask(t, method, "/", body)
			if got.status != http.StatusOK {
				t.Fatalf("%s: got %d although one of three containers is up", method, got.status)
			}
			if method != "HEAD" {
				if e := got.echo(t); e.BodyBytes != int64(len(body)) {
					t.Fatalf("%s: %d bytes of %d came through", method, e.BodyBytes, len(body))
				}
			}
		}
		if seen := good.counts(t).ByMethod[method]; seen != each {
			t.Errorf("%s: the container that is up saw %d requests, want %d", method, seen, each)
		}
	}
}

// dropper starts a server that reads a request and closes the connection.
func dropper(t *testing.T) (port string, dropped func(method string) int) {
	t.Helper()
	var mu sync.Mutex
	seen := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.Method]++
		mu.Unlock()
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	must(t, "reading the server's address", err)
	return port, func(method string) int {
		mu.Lock()
		defer mu.Unlock()
		return seen[method]
	}
}

func TestLostConnectionIsRetriedElsewhereIfNothingChanges(t *testing.T) {
	t.Parallel()
	good := startContainer(t, spec{})
	port, dropped := dropper(t)
	startContainer(t, spec{labels: map[string]string{"rgate.address": "127.0.0.1", "rgate.port": port}})
	g := startGateway(t, localBackend)
	g.await(t, "web", 2)
	const each = 40
	for method, body := range bodies {
		statuses := map[int]int{}
		for range each {
			statuses[g.ask(t, method, "/", body).status]++
		}
		seen, lost := good.counts(t).ByMethod[method], dropped(method)
		if lost == 0 {
			t.Fatalf("%s: the server that drops connections saw no request", method)
		}
		switch method {
		case "GET", "HEAD", "OPTIONS":
			if seen != each || statuses[200] != each {
				t.Errorf("%s: got %v and %d requests at the good container, want 200 for all %d", method, statuses, seen, each)
			}
		default:
			if seen+lost != each || statuses[200] != seen || statuses[503] != lost {
				t.Errorf("%s: %d requests reached %d containers, %d of them the good one, and got %v; want each at one container, and 503 if that was the bad one",
					method, each, seen+lost, seen, statuses)
			}
		}
	}
}

func TestRetriesAreCounted(t *testing.T) {
	t.Parallel()
	const containers = 4
	var all []*box
	for range containers {
		all = append(all, startContainer(t, spec{}))
	}
	g := startGateway(t, `
routes:
  - {path_prefix: /default, backend: default}
  - {path_prefix: /none, backend: none}
  - {path_prefix: /many, backend: many}
backends:
  - {name: default, match_labels: {app_name: $APP}}
  - {name: none, match_labels: {app_name: $APP}, retries: 0}
  - {name: many, match_labels: {app_name: $APP}, retries: 10}
`)
	sum := func(method string) (n int) {
		for _, b := range all {
			n += b.counts(t).ByMethod[method]
		}
		return n
	}
	for backend, want := range map[string]int{"default": 3, "none": 1, "many": containers} {
		g.await(t, backend, containers)
		for method, want := range map[string]int{"GET": want, "POST": 1} {
			before := sum(method)
			wantDown(t, method+" "+backend, g.ask(t, method, fmt.Sprintf("/%s?drop=1", backend), ""))
			if got := sum(method) - before; got != want {
				t.Errorf("backend %s: a %s that every container drops was sent %d times, want %d", backend, method, got, want)
			}
		}
	}
	// No container receives the same request twice.
	most := 0
	for _, b := range all {
		most = max(most, b.counts(t).ByMethod["GET"])
	}
	if most > 3 {
		t.Errorf("one container saw %s of 3 GET requests", strconv.Itoa(most))
	}
}
