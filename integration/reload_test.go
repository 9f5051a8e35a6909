package integration

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

// version returns a configuration whose default response contains n. The listen port is
// set on the command line.
func version(n int) string {
	return fmt.Sprintf(`admin: localhost:$ADMIN
default_response: {status_code: 410, body: version %d}
routes: [{path_prefix: /web, backend: web}]
backends: [{name: web, match_labels: {app_name: $APP}}]
`, n)
}

func (g *gateway) awaitVersion(t *testing.T, n int) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("version %d is loaded", n), func() bool {
		return g.get(t, "/").body == fmt.Sprintf("version %d", n)
	})
}

func TestReloadUnderLoadLosesNoRequest(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	startContainer(t, spec{})
	g := startGateway(t, version(0))
	g.await(t, "web", 2)
	load := g.startTraffic(t, 4, "/web")
	n := 0
	for range 3 {
		for name, reload := range map[string]func(){
			"SIGUSR1":      func() { g.signal(t, syscall.SIGUSR1) },
			"rgate reload": func() { g.reload(t) },
		} {
			load.awaitMore(t, "200", 50)
			n++
			g.write(t, version(n))
			reload()
			g.awaitVersion(t, n)
			// The new configuration must start with the known containers.
			g.await(t, "web", 2)
			t.Logf("version %d by %s", n, name)
		}
	}
	load.awaitMore(t, "200", 50)
	tally := load.stop()
	only(t, tally, "200")
	if got := g.stats(t, "").Requests.Success; got != tally["200"] {
		t.Errorf("the statistics count %d successes over %d configurations, want %d", got, n+1, tally["200"])
	}
}

// reload runs `rgate reload` and fails the test on error.
func (g *gateway) reload(t testing.TB) {
	t.Helper()
	if done := rgate(t, nil, "reload", "-c", g.file); done.code != 0 {
		t.Fatalf("reloading: exit code %d, %s", done.code, done.stderr)
	}
}

// Scrapes may read metrics of a configuration that is being stopped. The race detector
// reports conflicts with its cleanup.
func TestScrapesDuringReloads(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := startGateway(t, version(0))
	g.await(t, "web", 1)
	ctx, cancel := context.WithCancel(t.Context())
	var scrapers sync.WaitGroup
	defer scrapers.Wait()
	defer cancel()
	var scraped atomic.Int64
	for range 4 {
		client := newClient(t)
		scrapers.Go(func() {
			for ctx.Err() == nil {
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.adminURL("/metrics"), nil)
				if err != nil {
					panic(err)
				}
				// Requests may fail because each reload replaces the admin API.
				if got, err := do(client, request); err == nil && strings.Contains(got.body, "rgate_backend_up{") {
					scraped.Add(1)
				}
			}
		})
	}
	for n := 1; n <= 10; n++ {
		before := scraped.Load()
		g.write(t, version(n))
		g.reload(t)
		g.awaitVersion(t, n)
		testkit.Eventually(t, "the metrics are read again", func() bool { return scraped.Load() > before })
	}
}

func TestReloadOfAWrongFileChangesNothing(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := startGateway(t, version(1))
	g.await(t, "web", 1)
	load := g.startTraffic(t, 2, "/web")

	g.write(t, version(2)+"routs: []\n")
	done := rgate(t, nil, "reload", "-c", g.file)
	if done.code == 0 || !strings.Contains(done.stderr, ":5:") || !strings.Contains(done.stderr, "routes") {
		t.Errorf("rgate reload of a wrong file: got %d and %q, want an error with its line and the right word", done.code, done.stderr)
	}
	g.signal(t, syscall.SIGUSR1)
	testkit.Eventually(t, "the log says that SIGUSR1 met a wrong file", func() bool {
		return strings.Contains(g.output.String(), "routs")
	})
	if got := g.get(t, "/").body; got != "version 1" {
		t.Errorf("after a wrong file, %s responds, want version 1", got)
	}
	load.awaitMore(t, "200", 50)
	only(t, load.stop(), "200")
	g.write(t, version(3))
	g.signal(t, syscall.SIGUSR1)
	g.awaitVersion(t, 3)
}

// Caddy's own commands configure a plain TCP listener, which must take over the port.
func TestReloadByCaddysCommand(t *testing.T) {
	t.Parallel()
	g := startGateway(t, version(1))
	for n := 2; n < 5; n++ {
		g.write(t, version(n)+"listen: \":$PORT\"\n")
		if n == 4 { // switches back to rgate's listener
			g.reload(t)
		} else if done := rgate(t, nil, "reload", "--config", g.file, "--adapter", "rgate"); done.code != 0 {
			t.Fatalf("reloading: exit code %d, %s", done.code, done.stderr)
		}
		g.awaitVersion(t, n)
	}
}

func TestSignalsLetRequestsInFlightEnd(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			web := startContainer(t, spec{})
			g := startGateway(t, oneBackend)
			g.await(t, "web", 1)
			type result struct {
				response
				err error
			}
			inFlight := make(chan result, 1)
			request := g.request(t, "GET", "/?delay=1500ms", "")
			go func() {
				got, err := do(g.client, request)
				inFlight <- result{got, err}
			}()
			testkit.Eventually(t, "the request is in flight", func() bool { return web.counts(t).InFlight == 1 })
			g.signal(t, signal)
			testkit.Eventually(t, "the gateway takes no more connections", func() bool {
				conn, err := net.Dial("tcp", g.address())
				if err == nil {
					_ = conn.Close()
				}
				return err != nil
			})
			select {
			case got := <-inFlight:
				t.Errorf("the request ended with %d and %v before it could be seen that it is waited for", got.status, got.err)
			default:
				if got := <-inFlight; got.err != nil || got.status != http.StatusOK {
					t.Errorf("the request in flight ended with %d and %v, want 200", got.status, got.err)
				}
			}
			if code := g.awaitExit(t); code != 0 {
				t.Errorf("the exit code is %d, want 0", code)
			}
		})
	}
}
