package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

type client struct {
	base string
	http *http.Client
}

func newClient(base string) *client {
	return &client{base: base, http: &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: inFlight},
	}}
}

// get sends a request with a key. It returns the status and the container that
// responded.
func (c *client) get(ctx context.Context, key int) (status int, container string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/?delay=2ms", nil)
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("X-Key", strconv.Itoa(key))
	response, err := c.http.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, response.Header.Get("X-Container"), err
}

// owners returns the container of each key.
func (c *client) owners(ctx context.Context) ([]string, error) {
	owners := make([]string, keys)
	errs := make([]error, keys)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for key := int(next.Add(1)) - 1; key < keys; key = int(next.Add(1)) - 1 {
				var status int
				status, owners[key], errs[key] = c.get(ctx, key)
				if errs[key] == nil && status != http.StatusOK {
					errs[key] = fmt.Errorf("key %d got status %d", key, status)
				}
			}
		})
	}
	workers.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("finding the owners of the keys: %w", err)
		}
	}
	return owners, nil
}

// waitFor waits until requests reach exactly n containers, for at most 20 seconds.
func (c *client) waitFor(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		owners, err := c.owners(ctx)
		if err == nil {
			slices.Sort(owners)
			if len(slices.Compact(owners)) == n {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d containers to respond: %w (last: %v)", n, ctx.Err(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// phase holds the results of a step.
type phase struct {
	mu        sync.Mutex
	statuses  map[int]int     // Guarded by mu.
	cut       int             // Guarded by mu. The number of incomplete or missing responses.
	latencies []time.Duration // Guarded by mu.

	moved, needless int
	err             error
}

// load sends requests. It calls act when it sends the last request of the first quarter.
func (c *client) load(ctx context.Context, requests int, act func() error) *phase {
	p := &phase{statuses: make(map[int]int)}
	quarter := max(1, requests/4)
	reached := make(chan struct{})
	acted := make(chan error, 1)
	go func() {
		<-reached
		acted <- act()
	}()
	var next atomic.Int64
	var workers sync.WaitGroup
	for range inFlight {
		workers.Go(func() {
			for n := int(next.Add(1)); n <= requests; n = int(next.Add(1)) {
				if n == quarter {
					close(reached)
				}
				begun := time.Now()
				status, _, err := c.get(ctx, n%keys)
				p.record(status, err, time.Since(begun))
			}
		})
	}
	workers.Wait()
	p.err = <-acted
	return p
}

func (p *phase) record(status int, err error, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.cut++
		return
	}
	p.statuses[status]++
	p.latencies = append(p.latencies, took)
}

// compare counts the keys that moved, and the needless moves: from and to containers
// other than the given one.
func (p *phase) compare(before, after []string, container string) {
	for key := range before {
		if before[key] == after[key] {
			continue
		}
		p.moved++
		if before[key] != container && after[key] != container {
			p.needless++
		}
	}
}

func (p *phase) others() (n int) {
	for status, count := range p.statuses {
		if status != http.StatusOK && status != http.StatusServiceUnavailable {
			n += count
		}
	}
	return n
}

// percentile formats a percentile of the latencies in milliseconds.
func (p *phase) percentile(percent int) string {
	if len(p.latencies) == 0 {
		return "–"
	}
	slices.Sort(p.latencies)
	took := p.latencies[min(len(p.latencies)*percent/100, len(p.latencies)-1)]
	return strconv.FormatFloat(float64(took.Microseconds())/1000, 'f', 1, 64)
}

func (p *phase) add(other *phase) {
	if p.statuses == nil {
		p.statuses = make(map[int]int)
	}
	for status, count := range other.statuses {
		p.statuses[status] += count
	}
	p.cut += other.cut
	p.needless += other.needless
}

// check returns an error if requests failed or keys moved needlessly. A response in
// progress is lost if its container dies. At most one response in 1,000 may be lost.
func (p *phase) check() error {
	sent := p.cut
	for _, count := range p.statuses {
		sent += count
	}
	switch {
	case p.needless > 0:
		return fmt.Errorf("%d keys moved although their container was not affected", p.needless)
	case p.statuses[http.StatusOK]+p.cut < sent:
		return fmt.Errorf("%d of %d requests got a status other than 200, although other containers were available", sent-p.cut-p.statuses[http.StatusOK], sent)
	case p.cut*1000 > sent:
		return fmt.Errorf("%d of %d responses were cut off", p.cut, sent)
	}
	fmt.Printf("%d requests: %d got 200, %d cut off in the middle by a kill; no key moved needlessly.\n", sent, p.statuses[http.StatusOK], p.cut)
	return nil
}
