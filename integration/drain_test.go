package integration

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/rgate/rgate/dockerupstreams/dockertest"
	"github.com/rgate/rgate/internal/testkit"
)

// localContainer returns a container of a fake engine whose address is that of a server of
// the test, with the label app=NAME. labels are alternating names and values.
func localContainer(server *httptest.Server, name string, labels ...string) dockertest.Container {
	host, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	c := dockertest.Container{
		Name: name, Labels: map[string]string{"app": name, "rgate.port": port},
		Networks: map[string]dockertest.Network{"bridge": {IPAddress: host}},
	}
	for i := 0; i+1 < len(labels); i += 2 {
		c.Labels[labels[i]] = labels[i+1]
	}
	return c
}

// routesTo returns a route /NAME and a backend with the label app=NAME for each name.
func routesTo(names ...string) string {
	var routes, backends strings.Builder
	for _, name := range names {
		routes.WriteString("  - {path_prefix: /" + name + ", backend: " + name + "}\n")
		backends.WriteString("  - {name: " + name + ", match_labels: [app=" + name + "]}\n")
	}
	return "\nroutes:\n" + routes.String() + "backends:\n" + backends.String()
}

// okServer returns a server that responds to all requests with 200.
func okServer(t testing.TB) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	return server
}

// A container that is being stopped got requests again after 15 seconds, although
// `docker stop -t` can take longer. Other stop signals than the usual ones had no effect.
func TestE8StoppingContainersGetNoRequests(t *testing.T) {
	t.Parallel()
	const winch, usr1, usr2, term, hup = 28, 10, 12, 15, 1
	server := okServer(t)
	usual, quick := dockertest.New(t), dockertest.New(t)
	long := usual.Run(localContainer(server, "long"))
	usual.KillAgo(long, term, 20*time.Second) // `docker stop -t 25`
	reloads := usual.Run(localContainer(server, "reloads"))
	labeled := usual.Run(localContainer(server, "labeled", "rgate.stop_signals", "SIGWINCH, 34"))
	usual.Run(localContainer(server, "wrong", "rgate.stop_signals", "now"))
	ofImage := localContainer(server, "image")
	ofImage.StopSignal = "SIGUSR1"
	image := usual.Run(ofImage)
	option := quick.Run(localContainer(server, "option"))
	quick.Fail(dockertest.Faults{Refuse: map[string]int{"/containers/{id}/json": http.StatusForbidden}})

	g := startGateway(t, "docker: [{host: \""+usual.Host()+"\"}, {host: \""+quick.Host()+"\", drain: 1s, stop_signals: [SIGWINCH, usr2]}]"+
		routesTo("long", "reloads", "labeled", "image", "wrong", "option"))
	for _, path := range []string{"/reloads", "/labeled", "/image", "/option"} {
		g.awaitStatus(t, path, http.StatusOK)
	}
	wantDown(t, "a container that is being stopped for 20 seconds", g.get(t, "/long"))
	g.awaitReason(t, "wrong", `invalid label rgate.stop_signals="now": must be signals such as SIGWINCH, USR1 or 28`)

	t.Log("the signals of the label, the image and the option")
	testkit.Eventually(t, "the stop signals of the images are known", func() bool { return usual.Counts().Inspected >= 5 })
	usual.Kill(labeled, winch)
	usual.Kill(image, usr1)
	usual.Kill(reloads, hup)
	usual.Kill(reloads, usr1)
	g.awaitStatus(t, "/labeled", http.StatusServiceUnavailable)
	g.awaitStatus(t, "/image", http.StatusServiceUnavailable)
	if got := g.get(t, "/reloads").status; got != http.StatusOK {
		t.Errorf("after signals that reload a process: %d, want 200", got)
	}

	t.Log("a drain ends with a passing health check or when the container is unpaused")
	usual.SetHealth(labeled, "healthy")
	g.awaitStatus(t, "/labeled", http.StatusOK)
	usual.Pause(image, true)
	usual.Pause(image, false)
	g.awaitStatus(t, "/image", http.StatusOK)

	t.Log("and after its time, with one warning")
	quick.Kill(option, usr2)
	g.awaitStatus(t, "/option", http.StatusServiceUnavailable)
	g.awaitStatus(t, "/option", http.StatusOK)
	if lines := g.logged("receives requests again"); len(lines) != 1 || !strings.Contains(lines[0], `"container":"option"`) {
		t.Errorf("the warnings are %q, want one", lines)
	}
	if lines := g.logged("let the socket proxy pass GET on /containers/{id}/json"); len(lines) != 1 {
		t.Errorf("the missing permission is logged %d times, want once", len(lines))
	}
	wantDown(t, "a container that is still being stopped", g.get(t, "/long"))
	usual.Die(long)
	usual.StartAgain(long)
	g.awaitStatus(t, "/long", http.StatusOK)
}

// The stop signal of a real image is known. The container serves until it is killed.
func TestStopSignalOfARealImage(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{stopWith: "SIGWINCH"})
	g := startGateway(t, oneBackend)
	g.awaitStatus(t, "/", http.StatusOK)
	stopped := make(chan error, 1)
	patient := 3 // seconds
	go func() { stopped <- engine.ContainerStop(t.Context(), web.id, container.StopOptions{Timeout: &patient}) }()
	g.awaitStatus(t, "/", http.StatusServiceUnavailable)
	if got := web.ask(t, http.MethodGet, "/count"); got == "" {
		t.Error("the container does not serve any more: the test has proven nothing")
	}
	must(t, "stopping the container", <-stopped)
}
