package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// printMachine prints the machine and the versions of the measurement.
func printMachine(ctx context.Context) {
	fmt.Printf("Measured on %s with `make bench`: %s, %d cores, Linux %s, %s.\n",
		time.Now().UTC().Format(time.DateOnly),
		cmp.Or(find("/proc/cpuinfo", `model name\s*: (.*)`), runtime.GOARCH),
		runtime.NumCPU(),
		find("/proc/sys/kernel/osrelease", `(\d+\.\d+)`),
		runtime.Version())
	fmt.Printf("Peers: nginx %s, HAProxy %s, and Caddy %s in the same binary as rgate.\n",
		version(ctx, `nginx/([\d.]+)`, "nginx", "-v"),
		version(ctx, `version ([\d.]+)`, "haproxy", "-v"),
		version(ctx, `github.com/caddyserver/caddy/v2\s+v([\d.]+)`, "go", "version", "-m", "bin/rgate"))
}

// find returns the first submatch of an expression in a file.
func find(file, expression string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return match(string(content), expression)
}

func version(ctx context.Context, expression, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "unknown"
	}
	return cmp.Or(match(string(out), expression), "unknown")
}

func match(text, expression string) string {
	found := regexp.MustCompile(expression).FindStringSubmatch(text)
	if found == nil {
		return ""
	}
	return strings.TrimSpace(found[1])
}

func printMicro(all []benchmark) {
	fmt.Print("\n| package | benchmark | ns/op | B/op | allocs/op | other |\n|---|---|--:|--:|--:|---|\n")
	for _, b := range all {
		var other []string
		for _, unit := range slices.Sorted(maps.Keys(b.values)) {
			if unit != "ns/op" && unit != "B/op" && unit != "allocs/op" {
				other = append(other, b.values[unit]+" "+unit)
			}
		}
		fmt.Printf("| %s | %s | %s | %s | %s | %s |\n", b.pkg, b.name,
			b.values["ns/op"], b.values["B/op"], b.values["allocs/op"], strings.Join(other, ", "))
	}
}

func printGateways(opts options, results []result) {
	var caddy result
	for _, r := range results {
		if r.name == nameCaddy {
			caddy = r
		}
	}
	fmt.Printf("\nWhole gateways on loopback, two backends, %d connections, responses of 61 bytes; the medians of %d rounds of %s each.\n",
		opts.connections, opts.rounds, opts.duration)
	fmt.Print("\n| gateway | µs of CPU per request | over plain Caddy | requests/s | p99 | memory |\n|---|--:|--:|--:|--:|--:|\n")
	for _, r := range results {
		perSecond := r.median(func(s sample) float64 { return s.perSecond })
		p99 := r.median(func(s sample) float64 { return float64(s.p99) / float64(time.Millisecond) })
		if r.name == nameDirect {
			fmt.Printf("| %s | | | %.0f | %.1f ms | |\n", r.name, perSecond, p99)
			continue
		}
		fmt.Printf("| %s | %.1f | %.2f× | %.0f | %.1f ms | %.0f MB |\n", r.name,
			r.median(func(s sample) float64 { return micros(s.cpu) }), r.ratio(caddy), perSecond, p99,
			r.median(func(s sample) float64 { return float64(s.memory) / 1e6 }))
	}
}
