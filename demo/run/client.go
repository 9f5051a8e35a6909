package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"
	"time"
)

// response is a response of the gateway.
type response struct {
	status    int
	container string // empty: no container responded
	header    http.Header
	body      string
}

// client sends requests to the gateway and counts successes and failures.
type client struct {
	base string
	http *http.Client

	mu      sync.Mutex
	success int // Guarded by mu.
	failed  int // Guarded by mu.
}

func newClient(port int) *client {
	return &client{
		base: fmt.Sprintf("http://127.0.0.1:%d", port),
		http: &http.Client{
			Timeout:   10 * time.Second,
			Transport: &http.Transport{MaxIdleConnsPerHost: 64},
		},
	}
}

// get sends a request and counts it, so that the counts can be compared with the gateway's
// statistics.
func (c *client) get(path string) (response, error) {
	a, err := c.fetch(path)
	if err != nil {
		return a, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.status >= 200 && a.status < 400 {
		c.success++
	} else {
		c.failed++
	}
	return a, nil
}

// fetch sends a request that is not counted, such as a request for the statistics.
func (c *client) fetch(path string) (response, error) {
	resp, err := c.http.Get(c.base + path)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return response{}, fmt.Errorf("reading the response to %s: %w", path, err)
	}
	return response{
		status:    resp.StatusCode,
		container: resp.Header.Get("X-Container"),
		header:    resp.Header,
		body:      string(body),
	}, nil
}

// totals returns the numbers of successful and failed requests.
func (c *client) totals() (success, failed int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.success, c.failed
}

// load aggregates the responses to many requests.
type load struct {
	mu            sync.Mutex
	statuses      map[int]int          // Guarded by mu.
	containers    map[string]int       // Guarded by mu.
	errors        int                  // Guarded by mu.
	lastError     error                // Guarded by mu.
	lastResponses map[string]time.Time // Guarded by mu.
}

func newLoad() *load {
	return &load{statuses: map[int]int{}, containers: map[string]int{}, lastResponses: map[string]time.Time{}}
}

func (l *load) add(a response, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.errors++
		l.lastError = err
		return
	}
	l.statuses[a.status]++
	if a.container != "" {
		l.containers[a.container]++
		l.lastResponses[a.container] = time.Now()
	}
}

// report returns copies of the counts by status and by container.
func (l *load) report() (statuses map[int]int, containers map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.statuses), maps.Clone(l.containers)
}

// only reports whether all responses have this status.
func (l *load) only(status int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.errors == 0 && len(l.statuses) == 1 && l.statuses[status] > 0
}

// lastResponse returns the time of a container's last response.
func (l *load) lastResponse(container string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastResponses[container]
}

// send sends n requests to the paths in rotation, with at most atOnce in flight.
func (c *client) send(n, atOnce int, paths ...string) *load {
	l := newLoad()
	work := make(chan string)
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for path := range work {
				l.add(c.get(path))
			}
		})
	}
	for i := range n {
		work <- paths[i%len(paths)]
	}
	close(work)
	workers.Wait()
	return l
}

// keepSending sends requests until ctx is done, with at most atOnce in flight. wait
// blocks until the last response.
func (c *client) keepSending(ctx context.Context, atOnce int, path string) (l *load, wait func()) {
	l = newLoad()
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for pause(ctx, 5*time.Millisecond) == nil {
				l.add(c.get(path))
			}
		})
	}
	return l, workers.Wait
}
