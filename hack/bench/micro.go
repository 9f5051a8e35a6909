package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// hot lists the packages whose benchmarks run. The root package contains benchmarks across
// packages.
var hot = []string{".", "dockerupstreams", "gateway", "gateway/routing", "stats", "policy", "internal/entry", "internal/trust", "access/apikey", "access/cors", "access/ipfilter", "access/jwt", "access/ratelimit", "access/requestid", "access/require", "access/security", "traffic/cache", "traffic/circuitbreaker", "traffic/coalesce", "traffic/concurrency", "traffic/fallback", "traffic/httpcache", "traffic/transform", "bandwidth", "bandwidth/store", "bandwidth/scrape", "bandwidth/api", "dashboard"}

// benchmark is an output line of go test -bench.
type benchmark struct {
	pkg    string
	name   string
	values map[string]string // by unit
}

func runMicro(ctx context.Context, each time.Duration) ([]benchmark, error) {
	var all []benchmark
	for _, pkg := range hot {
		log.Printf("micro-benchmarks of %s", pkg)
		cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", ".", "-benchmem", "-benchtime", each.String(), "./"+pkg)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("running the benchmarks of %s: %w: %s%s", pkg, err, out, stderr.Bytes())
		}
		if pkg == "." {
			pkg = "rgate"
		}
		all = append(all, parseBenchmarks(pkg, string(out))...)
	}
	return all, nil
}

// parseBenchmarks parses lines such as `BenchmarkX/10-2  1000  12.3 ns/op  0 B/op`.
func parseBenchmarks(pkg, out string) (all []benchmark) {
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		if _, err := strconv.Atoi(fields[1]); err != nil {
			continue
		}
		b := benchmark{pkg: pkg, name: withoutProcs(strings.TrimPrefix(fields[0], "Benchmark")), values: map[string]string{}}
		for i := 2; i+1 < len(fields); i += 2 {
			b.values[fields[i+1]] = fields[i]
		}
		all = append(all, b)
	}
	return all
}

// withoutProcs removes the suffix with the number of processors, such as `-2`.
func withoutProcs(name string) string {
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		if _, err := strconv.Atoi(name[i+1:]); err == nil {
			return name[:i]
		}
	}
	return name
}
