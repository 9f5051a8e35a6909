// Command bench-balance compares rgate's selection policies with Caddy's and prints the
// results as Markdown: the distribution and movement of keys, the effects of hot keys
// and of a slow upstream, and the cost of a selection.
//
// All servers run in this process, on the loopback interface.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	_ "github.com/rgate/rgate/balance"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench-balance: ")
	duration := flag.Duration("duration", 3*time.Second, "how long each policy is under load")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *duration); err != nil {
		stop()
		log.Fatal(err)
	}
}

func run(ctx context.Context, duration time.Duration) error {
	fmt.Printf("Measured on %s with `make bench-balance`: %d cores, %s.\n",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.Version())
	printDistribution()
	if err := printHotKeys(ctx, duration); err != nil {
		return fmt.Errorf("measuring hot keys: %w", err)
	}
	if err := printSlowUpstream(ctx, duration); err != nil {
		return fmt.Errorf("measuring the slow upstream: %w", err)
	}
	if err := printCosts(ctx); err != nil {
		return fmt.Errorf("measuring selection costs: %w", err)
	}
	return nil
}
