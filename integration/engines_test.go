package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rgate/rgate/dockerupstreams/dockertest"
	"github.com/rgate/rgate/internal/testkit"
)

// health returns the health report of the admin API.
func (g *gateway) health(t testing.TB) (h healthReport) {
	t.Helper()
	response, err := g.client.Get(g.adminURL("/rgate/gateway/health"))
	must(t, "reading the health", err)
	defer response.Body.Close()
	must(t, "decoding the health", json.NewDecoder(response.Body).Decode(&h))
	return h
}

// unavailable returns the names of the dependencies that are not healthy.
func (g *gateway) unavailable(t testing.TB) (names []string) {
	t.Helper()
	for _, d := range g.health(t).Dependencies {
		if d.Status != "healthy" {
			names = append(names, d.Name)
		}
	}
	return names
}

// ready returns the status of the readiness endpoint of the admin API, and its report.
func (g *gateway) ready(t testing.TB) (status int, report string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.adminURL("/rgate/gateway/health/ready"), nil)
	must(t, "making a request", err)
	got, err := do(g.client, request)
	must(t, "reading the readiness", err)
	return got.status, got.body
}

// The socket of an engine that is restarted is another file. The gateway kept the old
// one, and its health check did not report the outage.
func TestE6ASocketThatIsReplacedIsOpenedAgain(t *testing.T) {
	t.Parallel()
	server := okServer(t)
	kept, distrusted := dockertest.New(t), dockertest.New(t)
	kept.Run(localContainer(server, "kept"))
	distrusted.Run(localContainer(server, "distrusted"))
	g := startGateway(t, "docker: [{host: \""+kept.Host()+"\"}, {host: \""+distrusted.Host()+"\", trust: 1s}]"+routesTo("kept", "distrusted", "new"))
	g.awaitStatus(t, "/kept", http.StatusOK)
	g.awaitStatus(t, "/distrusted", http.StatusOK)
	admin := fmt.Sprintf("CADDY_ADMIN=localhost:%d", g.admin)
	check := func(want int, words string, args ...string) {
		t.Helper()
		done := rgate(t, []string{admin}, append([]string{"healthcheck"}, args...)...)
		if done.code != want || !strings.Contains(done.stderr, words) {
			t.Errorf("healthcheck %v: got %d and %q, want %d and %q", args, done.code, done.stderr, want, words)
		}
	}
	check(0, "", "--strict")

	kept.Stop()
	distrusted.Stop()
	testkit.Eventually(t, "the health names the engines", func() bool { return len(g.unavailable(t)) == 2 })
	if h := g.health(t); h.Status != "degraded" || !slices.Contains(g.unavailable(t), "docker "+kept.Host()) {
		t.Errorf("the health is %+v, want degraded", h)
	}
	check(0, "")
	check(1, "is unavailable", "--strict")
	g.awaitStatus(t, "/distrusted", http.StatusServiceUnavailable)
	if got := g.get(t, "/kept").status; got != http.StatusOK {
		t.Errorf("during an outage, a known container is %d, want 200", got)
	}
	if age := g.metric(t, "rgate_docker_last_sync_age_seconds", "endpoint", kept.Host()); age <= 0 {
		t.Errorf("the last sync is %v seconds ago, want more than 0", age)
	}
	if connected := g.metric(t, "rgate_docker_connected"); connected != 0 {
		t.Errorf("%v engines are connected, want none", connected)
	}

	kept.Run(localContainer(server, "new"))
	kept.Start(t) // another socket at the same path
	distrusted.Start(t)
	g.awaitStatus(t, "/new", http.StatusOK)
	g.awaitStatus(t, "/distrusted", http.StatusOK)
	check(0, "", "--strict")
}

// swap is a pair of servers at two loopback addresses with the same port. Their names
// can be exchanged.
type swap struct {
	hosts [2]string
	port  string
	first atomic.Pointer[string]
}

func newSwap(t testing.TB, names [2]string) *swap {
	t.Helper()
	s := &swap{hosts: [2]string{"127.0.0.2", "127.0.0.3"}}
	s.first.Store(&names[0])
	for i, host := range s.hosts {
		listener, err := net.Listen("tcp", net.JoinHostPort(host, s.port))
		if err != nil {
			t.Skipf("this machine has no address %s, or the port is in use: %v", host, err)
		}
		_, s.port, _ = strings.Cut(listener.Addr().String(), ":")
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if first := *s.first.Load() == names[0]; first == (i == 0) {
				fmt.Fprint(w, names[0])
			} else {
				fmt.Fprint(w, names[1])
			}
		}))
		_ = server.Listener.Close()
		server.Listener = listener
		server.Start()
		t.Cleanup(server.Close)
	}
	return s
}

// An engine that is restarted may exchange the addresses of its containers. Until the
// gateway had listed them, requests went to strangers.
func TestE7AddressesOfARestartedEngineAreNotTrusted(t *testing.T) {
	t.Parallel()
	names := [2]string{"one", "two"}
	servers := newSwap(t, names)
	e := dockertest.New(t)
	var ids [2]string
	address := func(c *dockertest.Container, host string) {
		c.Networks = map[string]dockertest.Network{"bridge": {IPAddress: host}}
	}
	for i, name := range names {
		c := dockertest.Container{Name: name, Labels: map[string]string{"app": name, "rgate.port": servers.port}}
		address(&c, servers.hosts[i])
		ids[i] = e.Run(c)
	}
	g := startGateway(t, "docker: {host: \""+e.Host()+"\"}"+routesTo(names[:]...))
	plain := "{\n\tadmin localhost:$ADMIN\n}\n:$PORT {\n\thandle_path /one {\n\t\treverse_proxy {\n\t\t\tdynamic docker_labels app=one {\n\t\t\t\tendpoint " + e.Host() + "\n\t\t\t}\n\t\t}\n\t}\n}\n"
	block := launch(t, "Caddyfile", plain, nil, "run", "--config", "$FILE")
	all := []func() string{
		func() string { return "one:" + g.get(t, "/one").body },
		func() string { return "two:" + g.get(t, "/two").body },
		func() string { return "one:" + block.get(t, "/one").body },
	}
	for _, ask := range all {
		testkit.Eventually(t, "the containers are known", func() bool { got := ask(); return strings.TrimPrefix(got, got[:4]) == got[:3] })
	}

	attempts := func() (n [2]float64) {
		for i, g := range []*gateway{g, block} {
			n[i] = g.metric(t, "rgate_docker_reconnects_total")
		}
		return n
	}
	for _, outage := range []string{"refused", "held"} {
		testkit.Eventually(t, "both gateways follow the events", func() bool { return e.Streaming() == 2 })
		hold, before := make(chan struct{}), attempts()
		if outage == "held" { // the socket stays open, as with socket activation
			e.Fail(dockertest.Faults{PingHold: hold})
			held := e.Counts().HeldPings
			e.CutStreams()
			testkit.Eventually(t, "both gateways are connected", func() bool { return e.Counts().HeldPings >= held+2 })
		} else {
			e.Stop()
			testkit.Eventually(t, "connections were refused", func() bool {
				now := attempts()
				return now[0] > before[0]+1 && now[1] > before[1]+1
			})
			for _, ask := range all {
				if got := ask(); got != got[:3]+":"+got[:3] {
					t.Errorf("during the outage: %q", got)
				}
			}
			e.Fail(dockertest.Faults{PingHold: hold})
			e.Start(t)
			testkit.Eventually(t, "both gateways are connected", func() bool { return e.Counts().HeldPings >= 2 })
		}
		begun := time.Now()
		// The engine exchanges the addresses before it responds.
		e.Mute(true)
		e.Change(ids[0], "start", func(c *dockertest.Container) { address(c, servers.hosts[1]) })
		e.Change(ids[1], "start", func(c *dockertest.Container) { address(c, servers.hosts[0]) })
		e.Mute(false)
		servers.hosts[0], servers.hosts[1] = servers.hosts[1], servers.hosts[0]
		other := names[1]
		if *servers.first.Load() == names[1] {
			other = names[0]
		}
		servers.first.Store(&other)

		var asking sync.WaitGroup
		results, took := make([]string, len(all)), make([]time.Duration, len(all))
		for i, ask := range all {
			asking.Go(func() {
				sent := time.Now()
				results[i] = ask()
				took[i] = time.Since(sent)
			})
		}
		testkit.Eventually(t, "the engine has not responded for a while", func() bool { return time.Since(begun) > 300*time.Millisecond })
		e.Fail(dockertest.Faults{})
		close(hold)
		asking.Wait()
		for i, got := range results {
			switch {
			case got == got[:3]+":"+got[:3]:
			case took[i] >= time.Second:
				t.Logf("%s: the machine is slow: %q after %s", outage, got, took[i])
			default:
				t.Errorf("%s: a request went to a stranger: %q after %s", outage, got, took[i])
			}
		}
	}
}

// With several engines, one that was absent at the start kept the gateway from being
// ready.
func TestE11AnAbsentEngineDoesNotPreventReadiness(t *testing.T) {
	t.Parallel()
	server := okServer(t)
	there, absent := dockertest.NewStopped(t), dockertest.NewStopped(t)
	there.Run(localContainer(server, "web"))
	g := startGateway(t, "docker: [\""+there.Host()+"\", \""+absent.Host()+"\"]"+routesTo("web"))
	testkit.Eventually(t, "both attempts have failed", func() bool {
		errors := 0
		for _, e := range g.dockerReport(t) {
			if e.Error != "" {
				errors++
			}
		}
		return errors == 2
	})
	if status, body := g.ready(t); status != http.StatusServiceUnavailable {
		t.Errorf("without any engine: %d %s, want 503", status, body)
	}
	there.Start(t)
	testkit.Eventually(t, "the gateway is ready", func() bool { status, _ := g.ready(t); return status == http.StatusOK })
	g.awaitStatus(t, "/web", http.StatusOK)
	name := "docker " + absent.Host()
	if h := g.health(t); h.Status != "degraded" || !slices.Equal(g.unavailable(t), []string{name}) {
		t.Errorf("the health is %+v, want degraded because of %s", h, name)
	}
	if _, body := g.ready(t); !strings.Contains(body, name) {
		t.Errorf("the readiness is %s, want the name of the absent engine", body)
	}
	absent.Start(t)
	testkit.Eventually(t, "all is well", func() bool { return g.health(t).Status == "healthy" })
}

// podman is an engine that responds like Podman 4.3 on a Unix socket.
type podman struct {
	host   string
	events chan string

	mu         sync.Mutex
	containers []string // items of the list, as JSON. Guarded by mu.
	queries    []string // of the streams. Guarded by mu.
}

func newPodman(t testing.TB) *podman {
	t.Helper()
	folder, err := tempFolder()
	must(t, "making a folder", err)
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	socket := filepath.Join(folder, "podman.sock")
	listener, err := net.Listen("unix", socket)
	must(t, "opening the socket", err)
	p := &podman{host: "unix://" + socket, events: make(chan string)}
	mux := http.NewServeMux()
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Libpod-Api-Version", "4.3.1")
		w.Header().Set("Server", "Libpod/4.3.1 (linux)")
		fmt.Fprint(w, "OK")
	})
	mux.HandleFunc("GET /v1.41/containers/json", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		fmt.Fprintf(w, "[%s]", strings.Join(p.containers, ","))
	})
	mux.HandleFunc("GET /v1.41/containers/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"Id":%q,"Config":{"StopSignal":"15","Labels":{}}}`, r.PathValue("id"))
	})
	mux.HandleFunc("GET /v1.41/networks", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"Name":"podman","Id":"2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9","Driver":"bridge","Internal":false,"Containers":{}}]`)
	})
	mux.HandleFunc("GET /v1.41/events", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.queries = append(p.queries, r.URL.Query().Get("filters"))
		p.mu.Unlock()
		control := http.NewResponseController(w)
		_ = control.Flush()
		for {
			select {
			case text := <-p.events:
				fmt.Fprintln(w, text)
				_ = control.Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return p
}

// set replaces the list of containers.
func (p *podman) set(containers ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.containers = containers
}

// emit sends an event of a container to the gateway.
func (p *podman) emit(kind, action, id string, second int) {
	p.events <- fmt.Sprintf(`{"status":%q,"id":%q,"from":"localhost/web:latest","Type":%q,"Action":%q,"Actor":{"ID":%q,"Attributes":`+
		`{"containerExitCode":"0","image":"localhost/web:latest","name":"web","app":"web"}},"scope":"local","time":%d,"timeNano":%d}`,
		action, id, kind, action, id, 4102444800+second, (4102444800+second)*1_000_000_000)
}

// The events of Podman have other names. Its lists have no exposed ports, and the network
// mode host for all containers.
func TestE10EventsAndListsOfPodman(t *testing.T) {
	t.Parallel()
	server := okServer(t)
	host, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	p := newPodman(t)
	item := func(id, status, address string) string {
		return fmt.Sprintf(`{"Id":%q,"Names":["/web"],"Image":"localhost/web:latest","ImageID":"sha256:0","Command":"/web","Created":1668000000,`+
			`"Ports":null,"Labels":{"app":"web","rgate.port":%q},"State":"running","Status":%q,"HostConfig":{"NetworkMode":"host"},`+
			`"NetworkSettings":{"Networks":{"podman":{"IPAMConfig":null,"Links":null,"Aliases":["web"],"NetworkID":"podman","EndpointID":"",`+
			`"Gateway":"10.88.0.1","IPAddress":%q,"IPPrefixLen":16,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,`+
			`"MacAddress":"4a:71:5c:7e:f0:f1","DriverOpts":null}}},"Mounts":[],"Name":"","Config":null,"NetworkingConfig":null,"Platform":null,"AdjustCPUShares":false}`,
			id, port, status, address)
	}
	one, two := strings.Repeat("a", 64), strings.Repeat("b", 64)
	p.set(item(one, "Up 2 minutes", host))
	g := startGateway(t, "docker: {host: \""+p.host+"\"}"+routesTo("web"))
	g.awaitStatus(t, "/web", http.StatusOK)
	p.mu.Lock()
	for _, name := range []string{"died", "remove", "health_status"} {
		if !strings.Contains(p.queries[0], `"`+name+`":true`) {
			t.Errorf("the filter %s has no event %s", p.queries[0], name)
		}
	}
	p.mu.Unlock()

	p.emit("container", "died", one, 1) // the list still has it
	g.await(t, "web", 0)
	p.set(item(two, "Up 1 second", "127.0.0.9"))
	p.emit("container", "start", two, 2)
	g.await(t, "web", 1)
	p.set(item(two, "Up 2 seconds", host))
	p.emit("network", "connect", two, 3)
	g.awaitStatus(t, "/web", http.StatusOK)
	p.set(item(two, "Up 3 seconds", "127.0.0.9"))
	p.emit("container", "health_status", two, 4) // the container is listed again
	g.awaitStatus(t, "/web", http.StatusServiceUnavailable)
	p.set(item(two, "Up 4 seconds", host))
	p.emit("container", "health_status", two, 5)
	g.awaitStatus(t, "/web", http.StatusOK)
	p.set()
	p.emit("container", "remove", two, 6)
	g.await(t, "web", 0)
}
