package integration

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/rgate/rgate/internal/testkit"
)

// localOf returns the local address at which a container received a request.
func (g *gateway) localOf(t *testing.T, target string) string {
	t.Helper()
	return g.get(t, target).echo(t).Local
}

func TestPortLabelAndOption(t *testing.T) {
	t.Parallel()
	ports := spec{env: []string{"PORT=8080,9090"}, ports: []string{"9090/tcp"}}
	labelled := ports
	labelled.labels = map[string]string{"role": "labelled", "rgate.port": "9090"}
	startContainer(t, labelled)
	ports.labels = map[string]string{"role": "bare"}
	bare := startContainer(t, ports)
	g := startGateway(t, `
routes:
  - {path_prefix: /label, backend: label}
  - {path_prefix: /option, backend: option}
  - {path_prefix: /unsaid, backend: unsaid}
backends:
  - {name: label, match_labels: {app_name: $APP, role: labelled}}
  - {name: option, match_labels: {app_name: $APP}, port: 8080}
  - {name: unsaid, match_labels: {app_name: $APP, role: bare}}
`)
	g.await(t, "label", 1)
	if local := g.localOf(t, "/label"); !strings.HasSuffix(local, ":9090") {
		t.Errorf("the label rgate.port=9090 led to %s", local)
	}
	g.await(t, "option", 2)
	for range 10 {
		if local := g.localOf(t, "/option"); !strings.HasSuffix(local, ":8080") {
			t.Errorf("the option port: 8080 led to %s", local)
		}
	}
	wantDown(t, "a container with two ports", g.get(t, "/unsaid"))
	g.wantShutOut(t, bare, "rgate.port")
}

// wantShutOut checks that the log contains the rejection of a container, with the given
// parts.
func (g *gateway) wantShutOut(t *testing.T, b *box, parts ...string) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("one line of the log names %s and %q", b.name, parts), func() bool {
		return slices.ContainsFunc(strings.Split(g.output.String(), "\n"), func(line string) bool {
			return strings.Contains(line, "container rejected") && strings.Contains(line, b.name) &&
				!slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) })
		})
	})
}

func TestBadLabelShutsOutThatContainerOnly(t *testing.T) {
	t.Parallel()
	good := startContainer(t, spec{})
	bad := map[string]*box{}
	for label, value := range map[string]string{"rgate.port": "http", "rgate.scheme": "ftp", "rgate.weight": "-1", "rgate.network": "nowhere"} {
		bad[label+" "+value] = startContainer(t, spec{labels: map[string]string{label: value}})
	}
	g := startGateway(t, oneBackend)
	for what, b := range bad {
		g.wantShutOut(t, b, strings.Fields(what)...)
	}
	g.await(t, "web", 1)
	for range 20 {
		if got := g.get(t, "/").echo(t).Container; got != good.id[:12] {
			t.Fatalf("a request went to container %s, want %s as the others are shut out", got, good.id[:12])
		}
	}
}

func TestNetworks(t *testing.T) {
	t.Parallel()
	front, back := makeNetwork(t, "front"), makeNetwork(t, "back")
	both := spec{networks: []string{front, back}}
	labelled := both
	labelled.labels = map[string]string{"role": "labelled", "rgate.network": front}
	one := startContainer(t, labelled)
	both.labels = map[string]string{"role": "bare"}
	two := startContainer(t, both)
	g := startGateway(t, strings.NewReplacer("$FRONT", front, "$BACK", back).Replace(`
routes:
  - {path_prefix: /label, backend: label}
  - {path_prefix: /option, backend: option}
  - {path_prefix: /unsaid, backend: unsaid}
backends:
  - {name: label, match_labels: {app_name: $APP, role: labelled}}
  - {name: option, match_labels: {app_name: $APP, role: bare}, network: $FRONT}
  - {name: unsaid, match_labels: {app_name: $APP, role: bare}}
`))
	for _, tc := range []struct {
		backend string
		box     *box
		network string
	}{
		{"label", one, front},
		{"option", two, front},
		{"unsaid", two, back}, // the first network by name
	} {
		g.await(t, tc.backend, 1)
		if got, want := g.localOf(t, "/"+tc.backend), tc.box.addressIn(t, tc.network)+":8080"; got != want {
			t.Errorf("%s: the request arrived at %s, want %s", tc.backend, got, want)
		}
	}
	// A container that leaves the network is unavailable until it reconnects.
	two.disconnect(t, front)
	g.await(t, "option", 0)
	wantDown(t, "a container that left the network", g.get(t, "/option"))
	g.awaitStatus(t, "/unsaid", http.StatusOK)
	two.connect(t, front)
	g.await(t, "option", 1)
	if got, want := g.localOf(t, "/option"), two.addressIn(t, front)+":8080"; got != want {
		t.Errorf("once it is back, the request arrived at %s, want %s", got, want)
	}
	// If a container leaves the selected network, the gateway uses another of its
	// networks. Requests sent at this moment may be lost, so the client has a short
	// timeout.
	two.disconnect(t, back)
	want := two.addressIn(t, front) + ":8080"
	impatient := &http.Client{Transport: g.client.Transport, Timeout: time.Second}
	testkit.Eventually(t, "requests arrive through the other network", func() bool {
		got, err := do(impatient, g.request(t, "GET", "/unsaid", ""))
		return err == nil && got.status == http.StatusOK && got.echo(t).Local == want
	})
}

func TestHostNetwork(t *testing.T) {
	t.Parallel()
	port := strconv.Itoa(freePort(t))
	web := startContainer(t, spec{host: true, args: []string{"-listen", "127.0.0.1:" + port}, labels: map[string]string{"rgate.port": port}})
	g := startGateway(t, oneBackend)
	g.await(t, "web", 1)
	g.awaitStatus(t, "/", http.StatusOK)
	if got := g.localOf(t, "/"); got != "127.0.0.1:"+port {
		t.Errorf("the request arrived at %s, want 127.0.0.1:%s", got, port)
	}
	web.kill(t)
	g.await(t, "web", 0)
}

func TestSchemes(t *testing.T) {
	t.Parallel()
	secure := spec{args: []string{"-listen-tls", ":8443"}}
	secure.labels = map[string]string{"role": "https", "rgate.scheme": "https", "rgate.port": "8443"}
	startContainer(t, secure)
	startContainer(t, spec{labels: map[string]string{"role": "h2c", "rgate.scheme": "h2c"}})
	startContainer(t, spec{labels: map[string]string{"role": "http"}})
	g := startGateway(t, `
routes:
  - {path_prefix: /https-label, backend: https-label}
  - {path_prefix: /https-option, backend: https-option}
  - {path_prefix: /https-verified, backend: https-verified}
  - {path_prefix: /h2c-label, backend: h2c-label}
  - {path_prefix: /h2c-option, backend: h2c-option}
  - {path_prefix: /mixed, backend: mixed}
backends:
  - {name: https-label, match_labels: {app_name: $APP, role: https}, proxy: {transport: {protocol: http, tls: {insecure_skip_verify: true}}}}
  - {name: https-option, match_labels: {app_name: $APP, role: https}, scheme: https, proxy: {transport: {protocol: http, tls: {insecure_skip_verify: true}}}}
  - {name: https-verified, match_labels: {app_name: $APP, role: https}}
  - {name: h2c-label, match_labels: {app_name: $APP, role: h2c}}
  - {name: h2c-option, match_labels: {app_name: $APP, role: http}, scheme: h2c}
  - {name: mixed, match_labels: {app_name: $APP, env: production}, port: 8080}
`)
	for backend, want := range map[string]struct {
		tls      bool
		protocol string
	}{
		"https-label":  {true, "HTTP/2.0"},
		"https-option": {true, "HTTP/2.0"},
		"h2c-label":    {false, "HTTP/2.0"},
		"h2c-option":   {false, "HTTP/2.0"},
	} {
		g.await(t, backend, 1)
		if got := g.get(t, "/"+backend).echo(t); got.TLS != want.tls || got.Protocol != want.protocol {
			t.Errorf("%s: the request arrived with TLS %v over %s, want %v over %s", backend, got.TLS, got.Protocol, want.tls, want.protocol)
		}
	}
	// The certificate is self-signed.
	if got := g.get(t, "/https-verified"); got.status != http.StatusBadGateway {
		t.Errorf("a self-signed certificate: got %d, want 502", got.status)
	}
	// The schemes of a backend's containers may differ. The TLS port is overridden here,
	// so one of the three containers fails.
	g.await(t, "mixed", 3)
	protocols := map[string]int{}
	for range 60 {
		if got := g.get(t, "/mixed"); got.status == http.StatusOK {
			protocols[got.echo(t).Protocol]++
		}
	}
	if protocols["HTTP/1.1"] == 0 || protocols["HTTP/2.0"] == 0 {
		t.Errorf("requests arrived over %v, want both HTTP/1.1 and HTTP/2.0", protocols)
	}
}

func TestMaxRequests(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{labels: map[string]string{"rgate.max_requests": "2"}})
	g := startGateway(t, oneBackend)
	g.await(t, "web", 1)
	statuses := make(chan int, 2)
	for n := range 2 {
		request := g.request(t, "GET", "/?delay=1500ms", "")
		go func() {
			got, err := do(g.client, request)
			if err != nil {
				t.Errorf("a request within the limit: %v", err)
			}
			statuses <- got.status
		}()
		testkit.Eventually(t, "the request is in flight", func() bool { return web.counts(t).InFlight == n+1 })
	}
	wantDown(t, "a third request at once", g.get(t, "/"))
	for range 2 {
		if got := <-statuses; got != http.StatusOK {
			t.Errorf("a request within the limit: got %d, want 200", got)
		}
	}
	g.awaitStatus(t, "/", http.StatusOK)
	if got := web.counts(t).MaxInFlight; got != 2 {
		t.Errorf("the container had %d requests at once, want 2", got)
	}
}

func TestHealthGate(t *testing.T) {
	t.Parallel()
	check := &container.HealthConfig{
		Test:     []string{"CMD", "/backend", "-healthcheck"},
		Interval: 700 * time.Millisecond, Timeout: 5 * time.Second, Retries: 1,
	}
	web := startContainer(t, spec{args: []string{"-unhealthy"}, health: check})
	g := startGateway(t, `
routes:
  - {path_prefix: /gated, backend: gated}
  - {path_prefix: /any, backend: any}
backends:
  - {name: gated, match_labels: {app_name: $APP}}
  - {name: any, match_labels: {app_name: $APP}, health: any}
`)
	g.awaitStatus(t, "/any", http.StatusOK)
	wantDown(t, "a container whose health is not known", g.get(t, "/gated"))
	for range 2 {
		web.awaitHealth(t, "unhealthy")
		wantDown(t, "an unhealthy container", g.get(t, "/gated"))
		web.ask(t, "POST", "/healthz?up=1")
		web.awaitHealth(t, "healthy")
		g.awaitStatus(t, "/gated", http.StatusOK)
		web.ask(t, "POST", "/healthz?up=0")
		g.await(t, "gated", 0)
	}
	g.awaitStatus(t, "/any", http.StatusOK)
}

func (b *box) awaitHealth(t *testing.T, want string) {
	t.Helper()
	testkit.Eventually(t, b.name+" is "+want, func() bool {
		about, err := engine.ContainerInspect(t.Context(), b.id)
		must(t, "inspecting "+b.name, err)
		return string(about.State.Health.Status) == want
	})
}

func TestPausedContainerGetsNoRequests(t *testing.T) {
	t.Parallel()
	pausing, other := startContainer(t, spec{}), startContainer(t, spec{})
	g := startGateway(t, oneBackend)
	for range 2 {
		g.await(t, "web", 2)
		pausing.pause(t)
		g.await(t, "web", 1)
		for range 10 {
			if got := g.get(t, "/").echo(t).Container; got != other.id[:12] {
				t.Errorf("a request went to container %s, want %s", got, other.id[:12])
			}
		}
		pausing.unpause(t)
	}
	g.await(t, "web", 2)
}

func TestAllLabelsMustMatch(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{labels: map[string]string{"tier": "front", "other": "label"}})
	startContainer(t, spec{labels: map[string]string{"tier": "back"}})
	startContainer(t, spec{})
	g := startGateway(t, `
routes: [{path_prefix: /, backend: web}]
backends: [{name: web, match_labels: ["app_name=$APP", tier=front, env=production]}]
`)
	g.await(t, "web", 1)
	for range 20 {
		if got := g.get(t, "/").echo(t).Container; got != web.id[:12] {
			t.Fatalf("a request went to container %s, want %s as only that one has all labels", got, web.id[:12])
		}
	}
}
