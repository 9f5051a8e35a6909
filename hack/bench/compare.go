package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// sample is the result of one measurement.
type sample struct {
	requests  int
	perSecond float64
	p99       time.Duration
	cpu       time.Duration // CPU time per request; 0 without a gateway
	memory    int64
}

// result holds the samples of a gateway, by round.
type result struct {
	name    string
	samples []sample
}

// subject is a running gateway, or the backend without a gateway.
type subject struct {
	url     string
	process *process // nil for the backend
}

// compare starts all gateways and measures them in sequence.
func compare(ctx context.Context, opts options) ([]result, error) {
	folder, err := os.MkdirTemp("", "rgate-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	// The worker processes of nginx do not run as root.
	if err := os.Chmod(folder, 0o755); err != nil {
		return nil, err
	}
	addresses, stop, err := startBackends(ctx, 2)
	defer stop()
	if err != nil {
		return nil, err
	}
	results := []result{{name: nameDirect}}
	subjects := []subject{{url: urlOf(addresses[0])}}
	for _, p := range peers {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		running, err := p.start(ctx, setup{folder: folder, port: port, backends: addresses})
		if err != nil {
			return nil, err
		}
		defer running.stop()
		results = append(results, result{name: p.name})
		subjects = append(subjects, subject{url: urlOf(fmt.Sprintf("127.0.0.1:%d", port)), process: running})
	}
	for round := range opts.rounds {
		for i := range subjects {
			// Each round starts with a different gateway.
			at := (i + round) % len(subjects)
			s, err := subjects[at].measure(ctx, opts)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", results[at].name, err)
			}
			log.Printf("round %d of %d: %7.0f requests/s %6.1f µs  %s", round+1, opts.rounds, s.perSecond, micros(s.cpu), results[at].name)
			results[at].samples = append(results[at].samples, s)
		}
	}
	return results, nil
}

func (s subject) measure(ctx context.Context, opts options) (sample, error) {
	if _, err := wrk(ctx, s.url, opts.connections, opts.warmUp); err != nil {
		return sample{}, err
	}
	if s.process == nil {
		return wrk(ctx, s.url, opts.connections, opts.duration)
	}
	before, err := s.process.usage()
	if err != nil {
		return sample{}, err
	}
	result, err := wrk(ctx, s.url, opts.connections, opts.duration)
	if err != nil {
		return sample{}, err
	}
	after, err := s.process.usage()
	if err != nil {
		return sample{}, err
	}
	result.cpu = (after.cpu - before.cpu) / time.Duration(result.requests)
	result.memory = after.memory
	return result, nil
}

// wrk runs wrk for d, rounded to seconds and at least one, and parses its output.
func wrk(ctx context.Context, url string, connections int, d time.Duration) (sample, error) {
	out, err := exec.CommandContext(ctx, "wrk", "-t2", "-c", strconv.Itoa(connections),
		"-d", strconv.Itoa(max(1, int(d.Round(time.Second)/time.Second)))+"s", "--latency", url).CombinedOutput()
	if err != nil {
		return sample{}, fmt.Errorf("running wrk: %w: %s", err, out)
	}
	return parseWrk(string(out))
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in `)
	wrkRate     = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkP99      = regexp.MustCompile(`99%\s+([\d.]+(?:us|ms|s|m))`)
	wrkTrouble  = regexp.MustCompile(`(?m)^\s*(Socket errors: .*|Non-2xx or 3xx responses: .*)$`)
)

func parseWrk(out string) (s sample, err error) {
	if trouble := wrkTrouble.FindString(out); trouble != "" {
		return s, fmt.Errorf("requests failed: %s", trouble)
	}
	requests, rate, p99 := wrkRequests.FindStringSubmatch(out), wrkRate.FindStringSubmatch(out), wrkP99.FindStringSubmatch(out)
	if requests == nil || rate == nil || p99 == nil {
		return s, fmt.Errorf("unexpected output of wrk: %s", out)
	}
	var errs [3]error
	s.requests, errs[0] = strconv.Atoi(requests[1])
	s.perSecond, errs[1] = strconv.ParseFloat(rate[1], 64)
	s.p99, errs[2] = time.ParseDuration(p99[1])
	if err := errors.Join(errs[:]...); err != nil {
		return s, fmt.Errorf("reading the output of wrk: %w", err)
	}
	if s.requests == 0 {
		return s, errors.New("no request succeeded")
	}
	return s, nil
}

// median returns the median of f over the samples.
func (r result) median(f func(sample) float64) float64 {
	values := make([]float64, len(r.samples))
	for i, s := range r.samples {
		values[i] = f(s)
	}
	return median(values)
}

// ratio returns the median, over the rounds, of the ratio of CPU time per request to
// the other gateway.
func (r result) ratio(other result) float64 {
	values := make([]float64, len(r.samples))
	for i, s := range r.samples {
		values[i] = float64(s.cpu) / float64(other.samples[i].cpu)
	}
	return median(values)
}

func median(values []float64) float64 {
	slices.Sort(values)
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
