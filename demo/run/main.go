// Command run is the main demo. It starts containers and a gateway, sends requests,
// kills containers, and prints and checks the results. Containers and gateway keep
// running; -down removes them.
//
// It requires bin/rgate and the image of hack/image: `make demo` builds both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
)

const preferredPort = 8080

func main() {
	port := flag.Int("port", 0, fmt.Sprintf("port of the gateway (default %d, or any if that is taken)", preferredPort))
	onlyDown := flag.Bool("down", false, "remove what the demo left running")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *onlyDown {
		err = down(ctx)
	} else {
		err = run(ctx, *port)
	}
	if err != nil {
		stop()
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		if !*onlyDown {
			fmt.Fprintf(os.Stderr, "The gateway's log is %s; make demo-down removes what is left.\n", logFile)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, port int) error {
	if runtime.GOOS != "linux" {
		return errors.New("a gateway on this system cannot reach the addresses of containers: use docker compose -f demo/compose.yaml up")
	}
	if err := down(ctx); err != nil {
		return err
	}
	port, err := choosePort(port)
	if err != nil {
		return err
	}
	d := newDemo(port)
	for _, step := range []func(context.Context) error{
		d.startContainers,
		d.startGateway,
		d.splitLoad,
		d.askUnknownPath,
		d.killOne,
		d.stopAll,
		d.failHealth,
		d.showStatistics,
	} {
		if err := step(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if err := d.Err(); err != nil {
		return err
	}
	d.showNextSteps()
	return nil
}

// choosePort returns the wanted port, or an error if it is in use. If wanted is 0, it
// returns preferredPort or, if that port is in use, another free port.
func choosePort(wanted int) (int, error) {
	attempts := []int{wanted}
	if wanted == 0 {
		attempts = []int{preferredPort, 0}
	}
	var err error
	for _, port := range attempts {
		var listener net.Listener
		listener, err = net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(port)))
		if err == nil {
			port = listener.Addr().(*net.TCPAddr).Port
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("looking for a port: %w: choose another with make demo PORT=…", err)
}
