// Package dockertest is a container engine for tests. It speaks the part of the
// Docker Engine API that a gateway needs, over a unix socket, about containers
// that exist only in its memory; and it can fail in the ways real ones do.
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

// Container is a container of an Engine. The zero value of a field is what a
// plain `docker run` would make of it.
type Container struct {
	ID     string // default: made up
	Name   string // default: made up
	Labels map[string]string
	State  string // default: running
	Status string // default: Up 1 second
	// healthy, unhealthy or starting; empty: no health check. Engines before API
	// 1.52 report it only in the status, as this one does.
	Health string

	NetworkMode string             // default: default
	Networks    map[string]Network // default: bridge, with an address made up
	Ports       []Port
}

// Network is a container's place in a network.
type Network struct{ IPAddress, GlobalIPv6Address, Gateway, IPv6Gateway string }

// Port is a port that a container exposes, and where it is published.
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
	streams    map[chan message]chan struct{} // to: closed when the stream is cut
	server     *http.Server
	made       int
	muted      bool
	faults     Faults
	counts     Counts
}

// change is how a container was before, and until when.
type change struct {
	was Container
	at  time.Time
}

// Faults are ways to fail. The zero value does not fail.
type Faults struct {
	ListDelay  time.Duration  // before every response to a list
	ListLag    time.Duration  // changes are in lists this long after their events
	ListStatus int            // the status of lists, if not 0
	ListBody   string         // the body of lists, if not empty
	PingStatus int            // the status of pings, if not 0
	Refuse     map[string]int // a status by path, without the version
	APIVersion string         // the newest that the engine speaks. Default: 1.51
}

// Counts are how often something was asked for.
type Counts struct {
	Pings      int
	Lists      int // of everything
	Partial    int // of some IDs
	Containers int // in all responses to lists
	Streams    int
	Versions   map[string]int // requests by the version in their path
}

// New starts an engine that stops at the end of the test.
func New(tb testing.TB) *Engine {
	tb.Helper()
	e := NewStopped(tb)
	e.Start(tb)
	return e
}

// NewStopped makes an engine that does not run yet.
func NewStopped(tb testing.TB) *Engine {
	tb.Helper()
	// Not tb.TempDir: its paths may be longer than a socket's may be.
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

// Host is the engine's address.
func (e *Engine) Host() string { return "unix://" + e.path }

// Start starts the engine. It must not be running.
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

// Stop ends the engine and all its connections. Containers live on.
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

// CutStreams ends all streams of events.
func (e *Engine) CutStreams() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for stream, cut := range e.streams {
		close(cut)
		delete(e.streams, stream)
	}
}

// Mute makes the engine lose events, or stops that.
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

// Counts returns how often something was asked for.
func (e *Engine) Counts() Counts {
	e.mu.Lock()
	defer e.mu.Unlock()
	counts := e.counts
	counts.Versions = maps.Clone(counts.Versions)
	return counts
}

// Streaming returns how many streams of events are open.
func (e *Engine) Streaming() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.streams)
}

// Run adds a container, starts it unless it has another state than running,
// and returns its ID.
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

// Change alters a container and emits the event type/action.
func (e *Engine) Change(id, action string, alter func(*Container)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.remember(id)
	alter(e.containers[id])
	e.emit("container", action, id, nil)
}

// remember keeps how a container is before it changes. Guarded by mu.
func (e *Engine) remember(id string) {
	e.before[id] = change{was: *e.containers[id], at: time.Now()}
}

// Kill sends a container a signal, which it survives.
func (e *Engine) Kill(id string, signal int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.emit("container", "kill", id, map[string]string{"signal": strconv.Itoa(signal)})
}

// Die ends a container.
func (e *Engine) Die(id string) {
	e.Change(id, "die", func(c *Container) { c.State = "exited" })
}

// StartAgain starts a container that ended.
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

// Pause lets a container stand still, or go on.
func (e *Engine) Pause(id string, paused bool) {
	if paused {
		e.Change(id, "pause", func(c *Container) { c.State = "paused" })
		return
	}
	e.Change(id, "unpause", func(c *Container) { c.State = "running" })
}

// Connect attaches a container to a network, or (without addresses) detaches it.
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

// Noise emits an event that is irrelevant for a gateway.
func (e *Engine) Noise(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.emit("container", "exec_create: /bin/true", id, nil)
}

// Client returns an HTTP client for the engine, whatever host its requests name.
func (e *Engine) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", e.path)
		},
	}}
}
