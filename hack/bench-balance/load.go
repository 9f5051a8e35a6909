package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// printHotKeys prints the effect of a few keys with many requests.
func printHotKeys(ctx context.Context, duration time.Duration) error {
	const clients, latency = 100, 20 * time.Millisecond
	fmt.Printf("\n%d upstreams that take %s, %d requests in flight, keys by Zipf's law (exponent 1.1); under load for %s each. Fair would be %d for each upstream.\n\n",
		nodes, latency, clients, duration, clients/nodes)
	fmt.Println("| policy | most in flight at one | requests/s |")
	fmt.Println("|---|--:|--:|")
	for _, policy := range []struct{ name, config string }{
		{"Caddy's `header`", `{"policy": "header", "field": "X-User"}`},
		{"`ring_hash`", `{"policy": "ring_hash", "key": "{http.request.header.X-User}"}`},
		{"`ring_hash`, `load_factor` 1.25", `{"policy": "ring_hash", "key": "{http.request.header.X-User}", "load_factor": 1.25}`},
	} {
		t := &trial{policy: policy.config, clients: clients, key: func(r *rand.Rand) string {
			return fmt.Sprint(rand.NewZipf(r, 1.1, 1, keys).Uint64())
		}}
		for range nodes {
			t.upstreams = append(t.upstreams, newUpstream(latency))
		}
		took, err := t.run(ctx, duration)
		most := int64(0)
		for _, u := range t.upstreams {
			u.Close()
			most = max(most, u.most.Load())
		}
		if err != nil {
			return err
		}
		fmt.Printf("| %s | %d | %.0f |\n", policy.name, most, float64(len(took))/duration.Seconds())
	}
	return nil
}

// printSlowUpstream compares the policies with one slow upstream of three.
func printSlowUpstream(ctx context.Context, duration time.Duration) error {
	latencies := []time.Duration{10 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond}
	const clients = 30
	fmt.Printf("\nThree upstreams that take %v, %d requests in flight; under load for %s each.\n\n", latencies, clients, duration)
	fmt.Println("| policy | share of the slow one | requests/s | mean | p50 | p99 |")
	fmt.Println("|---|--:|--:|--:|--:|--:|")
	for _, name := range []string{"round_robin", "random", "least_conn", "least_latency"} {
		t := &trial{policy: fmt.Sprintf(`{"policy": %q}`, name), clients: clients}
		for _, latency := range latencies {
			t.upstreams = append(t.upstreams, newUpstream(latency))
		}
		took, err := t.run(ctx, duration)
		for _, u := range t.upstreams {
			u.Close()
		}
		if err != nil {
			return err
		}
		var sum time.Duration
		for _, d := range took {
			sum += d
		}
		n := len(took)
		millis := func(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
		fmt.Printf("| `%s` | %.1f %% | %.0f | %s | %s | %s |\n", name,
			100*float64(t.upstreams[len(latencies)-1].requests.Load())/float64(n), float64(n)/duration.Seconds(),
			millis(sum/time.Duration(n)), millis(took[n/2]), millis(took[n*99/100]))
	}
	return nil
}
