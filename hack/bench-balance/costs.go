package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// cost is the result of a benchmark: the minimum of several runs, because other load
// only increases the time.
type cost struct {
	nanoseconds float64
	allocations string
}

var benchLine = regexp.MustCompile(`(?m)^Benchmark(\w+)(?:/([a-z_]+))?/(\d+)-\d+\s+\d+\s+([\d.]+) ns/op\s+\d+ B/op\s+(\d+) allocs/op`)

// printCosts runs the benchmarks of package balance.
func printCosts(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^Benchmark(Select|Find|NewRing)$",
		"-benchmem", "-benchtime", "20ms", "-count", "5", "./balance")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("running the benchmarks of balance: %w: %s%s", err, out, stderr.Bytes())
	}
	costs := make(map[string]map[string]cost) // by name, then by number of nodes
	var order []string
	for _, m := range benchLine.FindAllStringSubmatch(string(out), -1) {
		what, size := labelOf(m[1], m[2]), m[3]
		if costs[what] == nil {
			costs[what] = make(map[string]cost)
			order = append(order, what)
		}
		ns, err := strconv.ParseFloat(m[4], 64)
		if err != nil {
			return fmt.Errorf("reading the benchmarks of balance: %w", err)
		}
		if best, ok := costs[what][size]; !ok || ns < best.nanoseconds {
			costs[what][size] = cost{ns, m[5]}
		}
	}
	sizes := []string{"3", "10", "50", "500"}
	fmt.Printf("\nWhat it costs to choose one of n upstreams, and allocations.\n\n| | %s |\n|---%s|\n",
		strings.Join(sizes, " | "), strings.Repeat("|--:", len(sizes)))
	for _, what := range order {
		fmt.Printf("| %s |", what)
		for _, size := range sizes {
			c := costs[what][size]
			fmt.Printf(" %s, %s |", duration(c.nanoseconds), c.allocations)
		}
		fmt.Println()
	}
	return nil
}

// labelOf returns a readable name for a benchmark.
func labelOf(benchmark, policy string) string {
	switch benchmark {
	case "Find":
		return "looking up on the ring alone"
	case "NewRing":
		return "making a ring of 150 virtual nodes each"
	}
	for suffix, text := range map[string]string{"_by_header": ", by header", "_bounded": ", `load_factor` 1.25"} {
		if name, ok := strings.CutSuffix(policy, suffix); ok {
			return "`" + name + "`" + text
		}
	}
	if name, ok := strings.CutPrefix(policy, "caddy_"); ok {
		return "Caddy's `" + name + "`"
	}
	return "`" + policy + "`"
}

func duration(nanoseconds float64) string {
	if nanoseconds < 10_000 {
		return fmt.Sprintf("%.0f ns", nanoseconds)
	}
	return fmt.Sprintf("%.0f µs", nanoseconds/1000)
}
