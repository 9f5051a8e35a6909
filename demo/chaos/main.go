// Command chaos tests requests while containers die and restart. Six containers share
// keys by consistent hashing. Each is killed and restarted in turn under load. Each
// phase prints the statuses, the latencies and the number of moved keys. The command exits
// with an error if a request failed that another container could have served, or if a key
// moved needlessly.
//
// It requires bin/rgate and the image of hack/image: `make chaos` builds both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/rgate/rgate/demo/docker"
)

const (
	replicas = 6
	inFlight = 200
	keys     = 1200
)

func main() {
	requests := flag.Int("requests", 6000, "requests per phase")
	flag.Parse()
	if *requests < 1 {
		fmt.Fprintf(os.Stderr, "chaos: invalid -requests %d: must be at least 1\n", *requests)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := run(ctx, *requests); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, requests int) (err error) {
	if err := docker.Remove(ctx, ownLabel); err != nil {
		return err
	}
	// Remove the containers even after an interrupt.
	defer func() { err = errors.Join(err, docker.Remove(context.WithoutCancel(ctx), ownLabel)) }()
	for i := range replicas {
		if err := startContainer(ctx, i+1); err != nil {
			return err
		}
	}
	gateway, err := startGateway()
	if err != nil {
		return err
	}
	defer gateway.stop()
	c := newClient(gateway.base)
	if err := c.waitFor(ctx, replicas); err != nil {
		return err
	}

	fmt.Printf("%d containers, %d keys on a ring, %d requests in flight, %d per phase\n\n", replicas, keys, inFlight, requests)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "phase\t200\t503\tother\tcut off\tmoved keys\tneedlessly\tp50 ms\tp95 ms\tp99 ms\t")
	before, err := c.owners(ctx)
	if err != nil {
		return err
	}
	var total phase
	for _, step := range steps() {
		p := c.load(ctx, requests, func() error { return step.act(ctx) })
		if p.err != nil {
			return fmt.Errorf("%s: %w", step.name, p.err)
		}
		if err := c.waitFor(ctx, step.alive); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		after, err := c.owners(ctx)
		if err != nil {
			return err
		}
		p.compare(before, after, step.container)
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d (%.1f %%)\t%d\t%s\t%s\t%s\t\n", step.name,
			p.statuses[200], p.statuses[503], p.others(), p.cut, p.moved, 100*float64(p.moved)/keys, p.needless,
			p.percentile(50), p.percentile(95), p.percentile(99))
		total.add(p)
		before = after
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Println()
	return total.check()
}

// step is a step of the demo.
type step struct {
	name      string
	container string // the container whose keys may move
	alive     int    // the number of running containers after the step
	act       func(context.Context) error
}

func steps() []step {
	all := []step{{name: "calm", alive: replicas, act: func(context.Context) error { return nil }}}
	for i := range replicas {
		name := host(i + 1)
		all = append(all,
			step{"kill " + name, name, replicas - 1, func(ctx context.Context) error {
				_, err := docker.Run(ctx, "kill", container(i+1))
				return err
			}},
			step{"revive " + name, name, replicas, func(ctx context.Context) error {
				_, err := docker.Run(ctx, "start", container(i+1))
				return err
			}})
	}
	return all
}
