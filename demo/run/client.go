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

// answer is what came back for one request.
type answer struct {
	status    int
	container string // empty if no container answered
	header    http.Header
	body      string
}

// client sends requests to the gateway and remembers how many ended how.
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

// get sends a request that counts in the gateway's statistics.
func (c *client) get(path string) (answer, error) {
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

// fetch sends one that does not, such as for the statistics themselves.
func (c *client) fetch(path string) (answer, error) {
	response, err := c.http.Get(c.base + path)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, fmt.Errorf("reading the answer to %s: %w", path, err)
	}
	return answer{
		status:    response.StatusCode,
		container: response.Header.Get("X-Container"),
		header:    response.Header,
		body:      string(body),
	}, nil
}

// totals returns how many requests succeeded and how many did not so far.
func (c *client) totals() (success, failed int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.success, c.failed
}

// load is what many requests came to.
type load struct {
	mu          sync.Mutex
	statuses    map[int]int          // Guarded by mu.
	containers  map[string]int       // Guarded by mu.
	errors      int                  // Guarded by mu.
	lastError   error                // Guarded by mu.
	lastAnswers map[string]time.Time // Guarded by mu.
}

func newLoad() *load {
	return &load{statuses: map[int]int{}, containers: map[string]int{}, lastAnswers: map[string]time.Time{}}
}

func (l *load) add(a answer, err error) {
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
		l.lastAnswers[a.container] = time.Now()
	}
}

// report returns copies.
func (l *load) report() (statuses map[int]int, containers map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.statuses), maps.Clone(l.containers)
}

// only tells whether every request got this status.
func (l *load) only(status int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.errors == 0 && len(l.statuses) == 1 && l.statuses[status] > 0
}

// lastAnswer tells when a container was last heard of.
func (l *load) lastAnswer(container string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastAnswers[container]
}

// send sends n requests to the paths in turn, several at once.
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

// keepSending sends requests until ctx is done, several at once. The function it
// returns waits for the last answer.
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
