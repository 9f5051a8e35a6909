// Package dockertest provides a fake container engine for tests. It serves the part of
// the Docker Engine API that the gateway uses on a Unix socket. Its containers exist
// only in memory. It can simulate failures of real engines.
package dockertest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Container is a container of an Engine. Zero fields get the defaults of `docker run`.
type Container struct {
	ID     string // default: generated
	Name   string // default: generated
	Labels map[string]string
	State  string // default: running
	Status string // default: Up 1 second
	// healthy, unhealthy or starting. Empty: no health check. It is reported only in
	// the status text, as before API 1.52.
	Health string

	StopSignal  string             // of the image. Empty: none
	NetworkMode string             // default: default
	Networks    map[string]Network // default: bridge, with a generated address
	Ports       []Port
}

// Network holds a container's addresses in a network, and the network's kind.
type Network struct {
	IPAddress, GlobalIPv6Address, Gateway, IPv6Gateway string

	Driver   string `json:"-"` // default: bridge
	Internal bool   `json:"-"`
}

// Port is a port that a container exposes, and the address at which it is published.
type Port struct {
	IP          string `json:",omitempty"`
	PrivatePort uint16
	PublicPort  uint16 `json:",omitempty"`
	Type        string
}

// Engine is a fake engine. Its methods are safe for concurrent use.
type Engine struct {
	path string

	mu         sync.Mutex // guards all below
	containers map[string]*Container
	before     map[string]change // the last change of each container
	order      []string
	history    []message
	streams    map[chan message]chan struct{} // the value is closed when the stream is cut
	server     *http.Server
	made       int
	muted      bool
	ago        time.Duration // the age of new events
	faults     Faults
	counts     Counts
}

// change holds the previous state of a container and the time of its change.
type change struct {
	was Container
	at  time.Time
}

// Faults configures simulated failures. The zero value simulates none.
type Faults struct {
	ListDelay  time.Duration  // the delay of every response to a list
	ListLag    time.Duration  // the delay after an event until lists contain the change
	ListStatus int            // the status of responses to lists, if not 0
	ListBody   string         // the body of responses to lists, if not empty
	PingStatus int            // the status of responses to pings, if not 0
	PingHold   chan struct{}  // if set, pings get a response when it is closed
	Refuse     map[string]int // the status of responses, by path without the version
	APIVersion string         // the newest supported API version. Default: 1.51
}

// Counts holds the numbers of requests.
type Counts struct {
	Pings      int
	HeldPings  int // pings without a response because of Faults.PingHold
	Inspected  int
	Lists      int // requests for all containers
	Partial    int // requests for some IDs
	Containers int // containers in all responses to lists
	Streams    int
	Versions   map[string]int // requests, by the version in the path
}

// New starts an engine. It is stopped at the end of the test.
func New(tb testing.TB) *Engine {
	tb.Helper()
	e := NewStopped(tb)
	e.Start(tb)
	return e
}

// NewStopped returns an engine that is not started.
func NewStopped(tb testing.TB) *Engine {
	tb.Helper()
	// Not tb.TempDir: its paths may exceed the maximum length of a socket's path.
	dir, err := os.MkdirTemp("", "rgate")
	if err != nil {
		tb.Fatalf("making a folder for the engine's socket: %v", err)
	}
	e := &Engine{
		path:       filepath.Join(dir, "docker.sock"),
		containers: make(map[string]*Container),
		before:     make(map[string]change),
		streams:    make(map[chan message]chan struct{}),
		counts:     Counts{Versions: make(map[string]int)},
	}
	tb.Cleanup(func() {
		e.Stop()
		_ = os.RemoveAll(dir)
	})
	return e
}

// Host returns the engine's address.
func (e *Engine) Host() string { return "unix://" + e.path }

// Start starts the engine, which must not be running.
func (e *Engine) Start(tb testing.TB) {
	tb.Helper()
	listener, err := net.Listen("unix", e.path)
	if err != nil {
		tb.Fatalf("starting the engine: %v", err)
	}
	server := &http.Server{Handler: e.handler()}
	e.mu.Lock()
	e.server = server
	e.mu.Unlock()
	go func() { _ = server.Serve(listener) }()
}

// Stop stops the engine and closes all connections. Containers are kept.
func (e *Engine) Stop() {
	e.mu.Lock()
	server := e.server
	e.server = nil
	e.mu.Unlock()
	e.CutStreams()
	if server != nil {
		_ = server.Close()
	}
}

// CutStreams closes all event streams.
func (e *Engine) CutStreams() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for stream, cut := range e.streams {
		close(cut)
		delete(e.streams, stream)
	}
}

// Mute sets whether the engine drops events.
func (e *Engine) Mute(muted bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.muted = muted
}

// Fail sets the engine's faults.
func (e *Engine) Fail(faults Faults) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults = faults
}

// Counts returns the numbers of requests.
func (e *Engine) Counts() Counts {
	e.mu.Lock()
	defer e.mu.Unlock()
	counts := e.counts
	counts.Versions = maps.Clone(counts.Versions)
	return counts
}

// Streaming returns the number of open event streams.
func (e *Engine) Streaming() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.streams)
}

// Run adds a container and returns its ID. It emits a start event if the state is
// running.
func (e *Engine) Run(c Container) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.made++
	if c.ID == "" {
		c.ID = fmt.Sprintf("%064x", e.made)
	}
	if c.Name == "" {
		c.Name = "container" + strconv.Itoa(e.made)
	}
	if c.State == "" {
		c.State = "running"
	}
	if c.NetworkMode == "" {
		c.NetworkMode = "default"
	}
	if c.Networks == nil && c.NetworkMode == "host" {
		c.Networks = map[string]Network{"host": {}}
	}
	if c.Networks == nil && c.NetworkMode == "default" {
		c.Networks = map[string]Network{"bridge": {
			IPAddress: fmt.Sprintf("172.17.%d.%d", e.made>>8&0xff, e.made&0xff), Gateway: "172.17.0.1",
		}}
	}
	e.containers[c.ID] = &c
	e.order = append(e.order, c.ID)
	if c.State == "running" {
		e.emit("container", "start", c.ID, nil)
	}
	return c.ID
}

// Change modifies a container and emits a container event with the action.
func (e *Engine) Change(id, action string, alter func(*Container)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.remember(id)
	alter(e.containers[id])
	e.emit("container", action, id, nil)
}

// remember stores the state of a container before a change. Guarded by mu.
func (e *Engine) remember(id string) {
	e.before[id] = change{was: *e.containers[id], at: time.Now()}
}

// Kill sends a signal to a container, which keeps running.
func (e *Engine) Kill(id string, signal int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.emit("container", "kill", id, map[string]string{"signal": strconv.Itoa(signal)})
}

// KillAgo is like Kill for a signal that was sent some time ago.
func (e *Engine) KillAgo(id string, signal int, ago time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ago = ago
	e.emit("container", "kill", id, map[string]string{"signal": strconv.Itoa(signal)})
	e.ago = 0
}

// Die stops a container.
func (e *Engine) Die(id string) {
	e.Change(id, "die", func(c *Container) { c.State = "exited" })
}

// StartAgain starts a stopped container.
func (e *Engine) StartAgain(id string) {
	e.Change(id, "start", func(c *Container) { c.State = "running" })
}

// Remove removes a container.
func (e *Engine) Remove(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.emit("container", "destroy", id, nil)
	delete(e.containers, id)
	e.order = slices.DeleteFunc(e.order, func(other string) bool { return other == id })
}

// SetHealth sets the result of a container's health check.
func (e *Engine) SetHealth(id, health string) {
	e.Change(id, "health_status: "+health, func(c *Container) { c.Health = health })
}

// Pause pauses or resumes a container.
func (e *Engine) Pause(id string, paused bool) {
	if paused {
		e.Change(id, "pause", func(c *Container) { c.State = "paused" })
		return
	}
	e.Change(id, "unpause", func(c *Container) { c.State = "running" })
}

// Connect attaches a container to a network, or detaches it if n has no addresses.
func (e *Engine) Connect(id, name string, n Network) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.remember(id)
	c := e.containers[id]
	networks := maps.Clone(c.Networks)
	action := "connect"
	if n == (Network{}) {
		action = "disconnect"
		delete(networks, name)
	} else {
		networks[name] = n
	}
	c.Networks = networks
	e.emit("network", action, name, map[string]string{"container": id, "name": name, "type": "bridge"})
}

// Noise emits an event that is irrelevant to a gateway.
func (e *Engine) Noise(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.emit("container", "exec_create: /bin/true", id, nil)
}

// Client returns an HTTP client that connects to the engine for any host.
func (e *Engine) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", e.path)
		},
	}}
}
