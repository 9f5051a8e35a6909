// Command bandwidth is the demo of package bandwidth. A gateway counts its own bytes
// and reads the counters of a mock Kong in a container. The demo queries both over REST
// and on the command line, and checks that no byte is lost or counted twice. It removes
// all containers at the end.
//
// It requires bin/rgate and the images of hack/image: `make demo-bandwidth` builds
// them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/rgate/rgate/demo/docker"
)

// ownLabel identifies the containers of the demo.
const ownLabel = "demo=rgate-bandwidth"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\nThe gateway's log is %s.\n", err, logFile)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	if runtime.GOOS != "linux" {
		return errors.New("a gateway on this system cannot reach the addresses of containers")
	}
	if err := docker.Remove(ctx, ownLabel); err != nil {
		return err
	}
	d := new(demo)
	defer func() {
		d.stopGateway()
		err = errors.Join(err, docker.Remove(context.WithoutCancel(ctx), ownLabel))
	}()
	for _, step := range []func(context.Context) error{
		d.startContainers,
		d.startGateway,
		d.useGateway,
		d.useKong,
		d.restartKong,
		d.restartGateway,
		d.loseKong,
		d.show,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := d.Err(); err != nil {
		return err
	}
	fmt.Printf("\nAll %d checks passed.\n", d.Checked())
	return nil
}
