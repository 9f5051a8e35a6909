package integration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"

	"github.com/rgate/rgate/internal/testkit"
)

const (
	image = "rgate-demo-backend:latest" // exposes port 8080

	// runLabel is the label of all objects that a run creates in the engine. Its value is
	// the process ID of the run, so that leftovers of ended runs can be removed.
	runLabel = "rgate.integration"

	// appLabel is the label that the tests' backends match containers by.
	appLabel = "app_name"
)

var runID = strconv.Itoa(os.Getpid())

// appOf returns a value of appLabel that is unique to the test.
func appOf(t testing.TB) string {
	return regexp.MustCompile(`[^A-Za-z0-9]+`).ReplaceAllString(t.Name(), "-") + "-" + runID
}

// spec describes a container. By default, it has the label appLabel=appOf(t), listens on
// 8080, has no health check, and joins the default network.
type spec struct {
	labels   map[string]string // additional labels
	env      []string
	args     []string
	ports    []string // additional exposed ports, such as `9090/tcp`
	host     bool     // use the host's network
	networks []string // replace the default network
	mode     container.NetworkMode
	stopWith string // the stop signal of the image
	health   *container.HealthConfig
	created  bool // do not start it
	deaf     bool // do not wait until it listens on 8080
}

// box is a container of a test.
type box struct {
	id, name string
	ip       string // in its first network by name; empty if unknown
}

var boxes atomic.Int64

// startContainer runs a container of the demo backend and waits until it listens. The
// container is removed when the test ends.
func startContainer(t testing.TB, s spec) *box {
	t.Helper()
	requireEngine(t)
	if runtime.GOOS != "linux" {
		t.Skip("containers can be reached by their addresses on Linux only")
	}
	config := &container.Config{
		Image:        image,
		Cmd:          s.args,
		Env:          s.env,
		Labels:       map[string]string{runLabel: runID, appLabel: appOf(t), "env": "production"},
		ExposedPorts: nat.PortSet{},
		StopSignal:   s.stopWith,
		Healthcheck:  &container.HealthConfig{Test: []string{"NONE"}},
	}
	for name, value := range s.labels {
		config.Labels[name] = value
	}
	for _, port := range s.ports {
		config.ExposedPorts[nat.Port(port)] = struct{}{}
	}
	if s.health != nil {
		config.Healthcheck = s.health
	}
	hostConfig := &container.HostConfig{}
	switch {
	case s.mode != "":
		hostConfig.NetworkMode, config.ExposedPorts = s.mode, nil
	case s.host:
		hostConfig.NetworkMode = network.NetworkHost
	case len(s.networks) > 0:
		hostConfig.NetworkMode = container.NetworkMode(s.networks[0])
	}
	b := &box{name: fmt.Sprintf("%s-%d", strings.ToLower(appOf(t)), boxes.Add(1))}
	created, err := engine.ContainerCreate(t.Context(), config, hostConfig, nil, nil, b.name)
	if err != nil {
		t.Fatalf("creating a container: %v", err)
	}
	b.id = created.ID
	t.Cleanup(func() { b.remove(t) })
	for _, name := range s.networks[min(1, len(s.networks)):] {
		b.connect(t, name)
	}
	if s.created {
		return b
	}
	b.start(t)
	if !s.deaf && !s.host {
		b.awaitPort(t, 8080)
	}
	return b
}

// awaitPort waits until the container listens on a port.
func (b *box) awaitPort(t testing.TB, port int) {
	t.Helper()
	address := net.JoinHostPort(b.ip, strconv.Itoa(port))
	testkit.Eventually(t, b.name+" listens on "+address, func() bool {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func (b *box) start(t testing.TB) {
	t.Helper()
	must(t, "starting "+b.name, engine.ContainerStart(t.Context(), b.id, container.StartOptions{}))
	b.look(t)
}

// look updates the container's address, which may change at every start.
func (b *box) look(t testing.TB) {
	t.Helper()
	about, err := engine.ContainerInspect(t.Context(), b.id)
	must(t, "inspecting "+b.name, err)
	b.ip = ""
	for _, name := range sortedKeys(about.NetworkSettings.Networks) {
		b.ip = cmp.Or(b.ip, about.NetworkSettings.Networks[name].IPAddress)
	}
}

func (b *box) kill(t testing.TB) {
	t.Helper()
	must(t, "killing "+b.name, engine.ContainerKill(t.Context(), b.id, "KILL"))
}

// stop stops the container like `docker stop` and waits until it has exited.
func (b *box) stop(t testing.TB) {
	t.Helper()
	must(t, "stopping "+b.name, engine.ContainerStop(t.Context(), b.id, container.StopOptions{}))
}

func (b *box) restart(t testing.TB) {
	t.Helper()
	must(t, "restarting "+b.name, engine.ContainerRestart(t.Context(), b.id, container.StopOptions{}))
	b.look(t)
}

func (b *box) pause(t testing.TB) {
	t.Helper()
	must(t, "pausing "+b.name, engine.ContainerPause(t.Context(), b.id))
}

func (b *box) unpause(t testing.TB) {
	t.Helper()
	must(t, "unpausing "+b.name, engine.ContainerUnpause(t.Context(), b.id))
}

func (b *box) connect(t testing.TB, name string) {
	t.Helper()
	must(t, "connecting "+b.name, engine.NetworkConnect(t.Context(), name, b.id, nil))
}

func (b *box) disconnect(t testing.TB, name string) {
	t.Helper()
	must(t, "disconnecting "+b.name, engine.NetworkDisconnect(t.Context(), name, b.id, false))
}

// addressIn returns the container's address in the given network.
func (b *box) addressIn(t testing.TB, name string) string {
	t.Helper()
	about, err := engine.ContainerInspect(t.Context(), b.id)
	must(t, "inspecting "+b.name, err)
	return about.NetworkSettings.Networks[name].IPAddress
}

func (b *box) remove(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := engine.ContainerRemove(ctx, b.id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !errdefs.IsNotFound(err) {
		t.Errorf("removing %s: %v", b.name, err)
	}
}

// makeNetwork creates a Docker network, which is removed when the test ends. Start its
// containers afterwards, so that they are removed first.
func makeNetwork(t testing.TB, suffix string, configure ...func(*network.CreateOptions)) string {
	t.Helper()
	options := network.CreateOptions{Labels: map[string]string{runLabel: runID}}
	for _, change := range configure {
		change(&options)
	}
	requireEngine(t)
	name := strings.ToLower(appOf(t)) + "-" + suffix
	created, err := engine.NetworkCreate(t.Context(), name, options)
	must(t, "making network "+name, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := engine.NetworkRemove(ctx, created.ID); err != nil {
			t.Errorf("removing network %s: %v", name, err)
		}
	})
	return name
}

// happenings subscribes to container events of the given kind. The returned function
// waits for the next one and returns its time according to the engine.
func (b *box) happenings(t testing.TB, what events.Action) func() time.Time {
	t.Helper()
	messages, errs := engine.Events(t.Context(), events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("container", b.id), filters.Arg("event", string(what)))})
	return func() time.Time {
		t.Helper()
		select {
		case m := <-messages:
			return time.Unix(0, m.TimeNano)
		case err := <-errs:
			t.Fatalf("waiting for the %s event of %s: %v", what, b.name, err)
		case <-time.After(patience):
			t.Fatalf("the engine did not report the %s event of %s within %s", what, b.name, patience)
		}
		panic("unreachable")
	}
}

// tempFolder creates a directory with a short name, because paths of Unix sockets are
// limited in length. Paths of testing.T.TempDir are too long.
func tempFolder() (string, error) { return os.MkdirTemp("", folderPrefix+runID+"-") }

const folderPrefix = "rgate-integration-"

// removeLeftovers removes directories, containers and networks of runs that have ended.
func removeLeftovers(ctx context.Context) error {
	ours := filters.NewArgs(filters.Arg("label", runLabel))
	containers, err := engine.ContainerList(ctx, container.ListOptions{All: true, Filters: ours})
	if err != nil {
		return err
	}
	var errs []error
	folders, err := filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+"*"))
	if err != nil {
		return err
	}
	for _, folder := range folders {
		run, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(folder), folderPrefix), "-")
		if !lives(run) {
			errs = append(errs, os.RemoveAll(folder))
		}
	}
	for _, c := range containers {
		if !lives(c.Labels[runLabel]) {
			errs = append(errs, engine.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true}))
		}
	}
	networks, err := engine.NetworkList(ctx, network.ListOptions{Filters: ours})
	if err != nil {
		return err
	}
	for _, n := range networks {
		if !lives(n.Labels[runLabel]) {
			errs = append(errs, engine.NetworkRemove(ctx, n.ID))
		}
	}
	return errors.Join(errs...)
}

// lives reports whether the process of a run exists. A run on another machine that uses
// the same engine is not detected, and its containers are removed.
func lives(run string) bool {
	pid, err := strconv.Atoi(run)
	return err == nil && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// must fails the test immediately if err is not nil. It is for errors that are not under
// test.
func must(t testing.TB, doing string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", doing, err)
	}
}
