// Package integration tests whole gateways as seen by a client: an rgate process, a
// Docker engine, and containers of the demo backend.
//
// The tests require Linux, where containers are reachable by IP address, and a Docker
// engine (hack/docker-engine starts one). Each test labels its own containers and removes
// all it has created, so that tests can run in parallel. Tests that measure time or load
// the machine run alone. Short mode runs only tests that need neither an engine nor the
// binary, such as tests of the docs and package rules.
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

// Set by TestMain; read-only afterwards.
var (
	engine *client.Client // the Docker engine of all tests
	binary string         // path of rgate, built with -race if the tests are
)

func TestMain(m *testing.M) {
	if addresses := os.Getenv(relayEnv); addresses != "" {
		runRelay(addresses)
		return
	}
	// The tests spend most of their time waiting.
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
		_ = engine.Close() // close idle connections, which goleak would report
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "integration:", err)
			return 1
		}
	}
	return code
}

// requireEngine skips the test in short mode, which has neither an engine nor the binary.
func requireEngine(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("short mode has no Docker engine")
	}
}

// prepare connects to the engine, removes leftovers of aborted runs, and builds the image
// and the binary.
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
	if os.Getenv("GOCOVERDIR") != "" { // coverage data of the gateway processes
		args = append(args, "-cover", "-covermode=atomic", "-coverpkg=github.com/rgate/rgate/...")
	}
	if err := command("go", append(args, "./cmd/rgate")...).Run(); err != nil {
		return fmt.Errorf("building rgate: %w", err)
	}
	return nil
}

// command returns a command that runs in the root of the repository.
func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = ".."
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd
}
