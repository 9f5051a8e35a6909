// Command bench compares rgate with other gateways and prints the results as Markdown.
// It runs the micro-benchmarks of the hot packages, then measures whole gateways on the
// loopback interface with the same backend.
//
// It requires bin/rgate, the image of hack/image, a Docker engine, and the commands
// wrk, nginx and haproxy: `make bench` provides them. The cost of a gateway is the CPU
// time per request, measured by the kernel. To reduce noise, each round measures all
// gateways in a different order, and ratios are computed within a round.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options holds the settings of the measurement.
type options struct {
	rounds      int
	duration    time.Duration
	warmUp      time.Duration
	connections int
	micro       bool
	microTime   time.Duration
	gateways    bool
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	var opts options
	flag.IntVar(&opts.rounds, "rounds", 3, "rounds in which every gateway is measured once")
	flag.DurationVar(&opts.duration, "duration", 5*time.Second, "how long each is measured in a round")
	flag.DurationVar(&opts.warmUp, "warm-up", time.Second, "how long each is loaded before it is measured")
	flag.IntVar(&opts.connections, "connections", 64, "connections of the load")
	flag.BoolVar(&opts.micro, "micro", true, "run the micro-benchmarks")
	flag.DurationVar(&opts.microTime, "micro-time", time.Second, "how long each micro-benchmark runs")
	flag.BoolVar(&opts.gateways, "gateways", true, "measure whole gateways")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, opts); err != nil {
		stop()
		log.Fatal(err)
	}
}

func run(ctx context.Context, opts options) error {
	printMachine(ctx)
	if opts.micro {
		results, err := runMicro(ctx, opts.microTime)
		if err != nil {
			return err
		}
		printMicro(results)
	}
	if !opts.gateways {
		return nil
	}
	results, err := compare(ctx, opts)
	if err != nil {
		return fmt.Errorf("measuring gateways: %w", err)
	}
	printGateways(opts, results)
	return nil
}
