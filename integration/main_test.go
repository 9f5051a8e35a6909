// Package integration runs whole gateways: the binary rgate in a process of its
// own, a real Docker engine, and real containers of the demo's backend. What it
// proves is what a client sees.
//
// It needs Linux, where containers can be reached by their addresses, and a Docker
// engine (hack/docker-engine starts one). Every test has containers with labels of its
// own, so that they can run in parallel, and removes what it made. Tests that measure
// time, or that load the machine, run alone. In short mode, only the tests run that need
// neither an engine nor the binary: those of the docs and of the packages' rules.
package integration

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/docker/docker/client"
	"go.uber.org/goleak"
)

// Made by TestMain, and not changed afterwards.
var (
	engine *client.Client // the Docker engine that all tests share
	binary string         // the gateway, with the race detector if the tests have it
)

func TestMain(m *testing.M) {
	// Most tests wait most of the time.
	_ = flag.Set("test.parallel", "6")
	flag.Parse()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if testing.Short() {
		return m.Run()
	}
	folder, err := tempFolder()
	if err == nil {
		defer os.RemoveAll(folder)
		err = prepare(folder)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		return 1
	}
	defer engine.Close()
	code := m.Run()
	if code == 0 {
		_ = engine.Close() // its idle connections are no leak
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "integration:", err)
			return 1
		}
	}
	return code
}

// requireEngine skips a test in short mode, which has neither an engine nor the binary.
func requireEngine(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("short mode has no Docker engine")
	}
}

// prepare connects to the engine, removes what an aborted run left there, and
// makes the image and the binary.
func prepare(folder string) error {
	var err error
	engine, err = client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return fmt.Errorf("preparing the connection to Docker: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := engine.Ping(ctx); err != nil {
		return fmt.Errorf("reaching the Docker engine: %w; run hack/docker-engine (`make test` does) or set DOCKER_HOST", err)
	}
	if err := removeLeftovers(ctx); err != nil {
		return fmt.Errorf("removing what an earlier run left: %w", err)
	}
	if err := command("hack/image").Run(); err != nil {
		return fmt.Errorf("making the image %s with hack/image: %w", image, err)
	}

	binary = filepath.Join(folder, "rgate")
	args := []string{"build", "-o", binary}
	if raceDetector {
		args = append(args, "-race")
	}
	if os.Getenv("GOCOVERDIR") != "" { // where the gateways write what they ran through
		args = append(args, "-cover", "-covermode=atomic", "-coverpkg=github.com/rgate/rgate/...")
	}
	if err := command("go", append(args, "./cmd/rgate")...).Run(); err != nil {
		return fmt.Errorf("building rgate: %w", err)
	}
	return nil
}

// command is to be run in the root of the repository.
func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = ".."
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd
}
