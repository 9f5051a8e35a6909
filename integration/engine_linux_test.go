package integration

import (
	"cmp"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"github.com/rgate/rgate/internal/testkit"
)

// ownEngine is a separate Docker engine that the test can stop.
//
// It runs in its own mount and network namespaces. An engine without a bridge removes
// docker0 on start, which must not affect the machine's engine. With a bridge, it runs in
// the network namespace of the test, which can reach its containers.
type ownEngine struct {
	folder string
	bridge string // name of its bridge interface; empty: none
	api    *client.Client
	daemon *exec.Cmd
	ended  chan struct{}
	output *output
}

func newOwnEngine(t *testing.T) *ownEngine { return makeOwnEngine(t, "") }

// newBridgedEngine is newOwnEngine with a bridge that has the given subnet, such as
// `198.18.5`.
func newBridgedEngine(t *testing.T, subnet string) *ownEngine {
	t.Helper()
	testkit.RequireProgram(t, "ip")
	return makeOwnEngine(t, subnet)
}

func makeOwnEngine(t *testing.T, subnet string) *ownEngine {
	t.Helper()
	requireEngine(t)
	if _, err := exec.LookPath("dockerd"); err != nil {
		t.Skip("dockerd is not on this machine: the engine is elsewhere, and a test cannot restart it")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can start an engine")
	}
	folder, err := tempFolder()
	must(t, "making a folder", err)
	e := &ownEngine{folder: folder, output: new(output)}
	if subnet != "" {
		e.bridge = "rgate" + strconv.Itoa(os.Getpid())
		for _, args := range [][]string{
			{"link", "add", e.bridge, "type", "bridge"}, {"addr", "add", subnet + ".1/24", "dev", e.bridge}, {"link", "set", e.bridge, "up"},
		} {
			output, err := exec.Command("ip", args...).CombinedOutput()
			must(t, string(output), err)
		}
		t.Cleanup(func() { _ = exec.Command("ip", "link", "del", e.bridge).Run() })
	}
	must(t, "writing the engine's configuration", os.WriteFile(e.path("none.json"), []byte("{}"), 0o600))
	e.api, err = client.NewClientWithOpts(client.WithHost(e.host()), client.WithAPIVersionNegotiation())
	must(t, "preparing the connection to the engine", err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the engine wrote:\n%s", e.output)
		}
		if err := os.RemoveAll(folder); err != nil {
			t.Errorf("removing the engine's folder: %v", err)
		}
	})
	e.start(t)
	t.Cleanup(func() {
		e.end(t, syscall.SIGTERM)
		_ = e.api.Close()
	})
	return e
}

func (e *ownEngine) path(name string) string { return filepath.Join(e.folder, name) }

func (e *ownEngine) host() string { return "unix://" + e.path("s") }

func (e *ownEngine) start(t *testing.T) {
	t.Helper()
	// Remove PID files of a killed daemon, which prevent a new start.
	for _, stale := range []string{"pid", "exec/containerd/containerd.pid"} {
		if err := os.Remove(e.path(stale)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	e.daemon = exec.Command("dockerd", "-H", e.host(), "--config-file", e.path("none.json"), "--pidfile", e.path("pid"),
		"--data-root", e.path("data"), "--exec-root", e.path("exec"), "--storage-driver", "vfs",
		"--bridge", cmp.Or(e.bridge, "none"), "--iptables=false", "--ip-forward=false")
	e.daemon.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Pdeathsig:    syscall.SIGTERM, // if the tests are aborted
	}
	if e.bridge != "" {
		e.daemon.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	e.daemon.Stdout, e.daemon.Stderr = e.output, e.output
	// Child processes that outlive the daemon may keep its output open.
	e.daemon.WaitDelay = time.Second
	must(t, "starting dockerd", e.daemon.Start())
	daemon, ended := e.daemon, make(chan struct{})
	e.ended = ended
	go func() {
		_ = daemon.Wait()
		close(ended)
	}()
	testkit.Eventually(t, "the engine responds", func() bool {
		select {
		case <-ended:
			t.Fatalf("dockerd ended: %s", daemon.ProcessState)
		default:
		}
		_, err := e.api.Ping(t.Context())
		return err == nil
	})
}

// end sends a signal to the engine and waits until it has exited.
func (e *ownEngine) end(t *testing.T, signal os.Signal) {
	t.Helper()
	if err := e.daemon.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("ending dockerd: %v", err)
	}
	late := time.AfterFunc(2*patience, func() { _ = e.daemon.Process.Kill() })
	defer late.Stop()
	<-e.ended
}

// takeImage copies the backend's image from the machine's engine.
func (e *ownEngine) takeImage(t *testing.T) {
	t.Helper()
	saved, err := engine.ImageSave(t.Context(), []string{image})
	must(t, "saving the image", err)
	defer saved.Close()
	loaded, err := e.api.ImageLoad(t.Context(), saved)
	must(t, "loading the image", err)
	defer loaded.Body.Close()
	_, err = io.Copy(io.Discard, loaded.Body)
	must(t, "loading the image", err)
}

func TestEngineRestarted(t *testing.T) {
	t.Parallel()
	e := newOwnEngine(t)
	e.takeImage(t)
	// The container's labels set the address of a server that outlives it. Requests
	// succeed as long as the gateway uses that upstream.
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	must(t, "reading the server's address", err)
	created, err := e.api.ContainerCreate(t.Context(), &container.Config{
		Image:       image,
		Labels:      map[string]string{appLabel: appOf(t), "rgate.address": "127.0.0.1", "rgate.port": port},
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
	}, &container.HostConfig{NetworkMode: "none"}, nil, nil, "web")
	must(t, "creating a container", err)
	startWeb := func() {
		must(t, "starting the container", e.api.ContainerStart(t.Context(), created.ID, container.StartOptions{}))
	}
	startWeb()
	g := startGateway(t, "docker: {host: \""+e.host()+"\"}"+localBackend)
	g.awaitStatus(t, "/", http.StatusOK)

	t.Log("an engine that ends without a word leaves its containers as they were")
	load := g.startTraffic(t, 2, "/")
	e.end(t, syscall.SIGKILL)
	load.awaitMore(t, "200", 300)
	only(t, load.stop(), "200")
	e.start(t) // stops containers that are still running
	g.awaitStatus(t, "/", http.StatusServiceUnavailable)
	startWeb()
	g.awaitStatus(t, "/", http.StatusOK)

	t.Log("an engine that ends in order stops its containers, and says so")
	e.end(t, syscall.SIGTERM)
	g.awaitStatus(t, "/", http.StatusServiceUnavailable)
	e.start(t)
	startWeb()
	g.awaitStatus(t, "/", http.StatusOK)
}
