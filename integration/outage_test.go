package integration

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/client"

	"github.com/rgate/rgate/internal/testkit"
)

// relay is a Unix socket that forwards to the Docker engine while it is up.
type relay struct {
	socket string
	engine string // path of the engine's own socket

	mu       sync.Mutex
	listener net.Listener          // nil while the relay is down. Guarded by mu.
	conns    map[net.Conn]struct{} // Guarded by mu.
	accepted int                   // Guarded by mu.
	copiers  sync.WaitGroup
}

// newRelay creates a relay that is down. It is removed when the test ends.
func newRelay(t *testing.T) *relay {
	t.Helper()
	requireEngine(t)
	return newRelayTo(t, engine.DaemonHost())
}

// newRelayTo is newRelay for the engine at host.
func newRelayTo(t *testing.T, host string) *relay {
	t.Helper()
	socket, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		t.Skipf("the engine is at %s: the relay leads to local sockets only", host)
	}
	folder, err := tempFolder()
	must(t, "making a folder", err)
	r := &relay{socket: filepath.Join(folder, "docker.sock"), engine: socket, conns: make(map[net.Conn]struct{})}
	t.Cleanup(func() {
		r.cut()
		r.copiers.Wait()
		_ = os.RemoveAll(folder)
	})
	return r
}

// up starts to accept connections.
func (r *relay) up(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("unix", r.socket)
	must(t, "opening the relay", err)
	r.serve(listener)
}

// serve starts to accept connections from a listener.
func (r *relay) serve(listener net.Listener) {
	r.mu.Lock()
	r.listener = listener
	r.mu.Unlock()
	r.copiers.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			r.connect(from)
		}
	})
}

func (r *relay) connect(from net.Conn) {
	to, err := net.Dial("unix", r.engine)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accepted++
	if err != nil || r.listener == nil {
		_ = from.Close()
		if err == nil {
			_ = to.Close()
		}
		return
	}
	r.conns[from], r.conns[to] = struct{}{}, struct{}{}
	for _, pair := range [][2]net.Conn{{from, to}, {to, from}} {
		r.copiers.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_ = pair[0].Close()
			_ = pair[1].Close()
		})
	}
}

// cutConnections closes all connections. New connections are still accepted.
func (r *relay) cutConnections() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.conns {
		_ = conn.Close()
	}
	clear(r.conns)
}

// cut closes all connections and stops accepting new ones.
func (r *relay) cut() {
	r.mu.Lock()
	listener := r.listener
	r.listener = nil
	r.mu.Unlock()
	if listener != nil {
		_ = listener.Close()
	}
	r.cutConnections()
}

// connections returns the number of connections accepted so far.
func (r *relay) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

func overRelay(r *relay) string {
	return "docker: {host: \"unix://" + r.socket + "\"}" + oneBackend
}

func TestEngineCutAndBack(t *testing.T) {
	t.Parallel()
	// The separate network prevents other tests from reusing the address of a stopped
	// container. The gateway continues to send requests there.
	alone := spec{networks: []string{makeNetwork(t, "alone")}}
	first := startContainer(t, alone)
	r := newRelay(t)
	r.up(t)
	g := startGateway(t, overRelay(r))
	g.await(t, "web", 1)
	for range 2 {
		load := g.startTraffic(t, 2, "/")
		r.cut()
		testkit.Eventually(t, "the gateway says that the engine is gone", func() bool {
			return strings.Contains(g.output.String(), "cannot reach the Docker engine")
		})
		// During the outage, the gateway keeps the known upstreams and does not detect
		// new ones.
		second := startContainer(t, alone)
		load.awaitMore(t, "200", 200)
		if seen := second.counts(t).Total; seen != 0 {
			t.Errorf("a container that the gateway cannot know of got %d requests", seen)
		}
		only(t, load.stop(), "200")
		first.kill(t)
		g.awaitStatus(t, "/", http.StatusServiceUnavailable)
		if age := g.metric(t, "rgate_docker_last_sync_age_seconds"); age <= 0 {
			t.Errorf("the last sync is %v seconds ago while the engine is gone, want more than 0", age)
		}
		r.up(t)
		g.awaitStatus(t, "/", http.StatusOK)
		if got := g.get(t, "/").echo(t).Container; got != second.id[:12] {
			t.Errorf("once the engine is back, container %s responds, want %s", got, second.id[:12])
		}
		first = second
	}
}

// Some socket proxies close every stream after a few minutes. The gateway must reconnect
// without visible effects.
func TestStreamOfEventsThatEndsIsOpenedAgain(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	r := newRelay(t)
	r.up(t)
	g := startGateway(t, overRelay(r))
	g.await(t, "web", 1)
	load := g.startTraffic(t, 2, "/")
	for n := range 3 {
		before := r.connections()
		r.cutConnections()
		testkit.Eventually(t, "the gateway connects again", func() bool { return r.connections() > before })
		startContainer(t, spec{})
		g.await(t, "web", n+2)
	}
	only(t, load.stop(), "200")
}

func TestEngineAbsentAtStart(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	r := newRelay(t)
	g := startGateway(t, "default_response: {status_code: 410}\n"+
		"routes: [{path_prefix: /web, backend: web}]\n"+
		"backends: [{name: web, match_labels: {app_name: $APP}}]\n", client.EnvOverrideHost+"=unix://"+r.socket)
	wantDown(t, "GET /web", g.get(t, "/web"))
	if got := g.get(t, "/elsewhere"); got.status != http.StatusGone {
		t.Errorf("without an engine, the default response is %d, want 410", got.status)
	}
	if got := g.stats(t, "").Requests; got.Error != 2 || got.Success != 0 {
		t.Errorf("without an engine, the statistics are %+v, want 2 errors", got)
	}
	r.up(t)
	g.awaitStatus(t, "/web", http.StatusOK)
	g.metric(t, "rgate_docker_last_sync_age_seconds")
}
