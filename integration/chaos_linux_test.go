package integration

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"github.com/rgate/rgate/internal/testkit"
)

var chaosFor = flag.Duration("chaos", 0, "the duration of TestChaos; 0: skip it")

// chaosMember is a container of the test with its expected state.
type chaosMember struct {
	id, name string
	checked  bool // has a health check

	mu   sync.Mutex
	gone time.Time // the time since which it must get no requests; zero: it may
}

// leave records that the container must get no requests from now on.
func (m *chaosMember) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = time.Now()
}

func (m *chaosMember) join() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = time.Time{}
}

// mayServe reports whether the container may serve a request that was sent at the given
// time. Events arrive within milliseconds; after the stream of events was cut, within two
// seconds on a loaded machine.
func (m *chaosMember) mayServe(sent time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gone.IsZero() || sent.Before(m.gone.Add(2*time.Second))
}

// steadyBefore is the minimum time between two cuts. After a stream that lasted so long,
// the gateway reconnects without a delay, in which it could not know changes.
const steadyBefore = 6 * time.Second

// chaos holds the state of TestChaos.
type chaos struct {
	t       *testing.T
	e       *ownEngine
	api     *client.Client
	members map[string]*chaosMember // by host name, which responses contain; strangers are nil
	cut     time.Time               // the last cut of the stream of events
	down    atomic.Bool             // the engine is being restarted, so that no container may run
	ok      atomic.Int64
	bad     sync.Map // violations, as texts
}

func (c *chaos) run(name string, labels map[string]string, health *container.HealthConfig) *chaosMember {
	c.t.Helper()
	created, err := c.api.ContainerCreate(c.t.Context(), &container.Config{Image: image, Labels: labels, Healthcheck: health},
		&container.HostConfig{RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyUnlessStopped}}, nil, nil, name)
	must(c.t, "creating "+name, err)
	must(c.t, "starting "+name, c.api.ContainerStart(c.t.Context(), created.ID, container.StartOptions{}))
	m := &chaosMember{id: created.ID, name: name, checked: health != nil}
	c.members[created.ID[:12]] = m
	return m
}

// load sends requests with a nonce until ctx is done.
func (c *chaos) load(ctx context.Context, g *gateway, worker int) {
	client := newClient(c.t)
	for i := 0; ctx.Err() == nil; i++ {
		nonce := fmt.Sprintf("/?nonce=%d-%d", worker, i)
		request, _ := http.NewRequest(http.MethodGet, g.url(nonce), nil)
		sent, wasDown := time.Now(), c.down.Load()
		got, err := do(client, request)
		var e echo
		switch {
		case err != nil:
			c.bad.Store("a request failed: "+err.Error(), true)
		case got.status != http.StatusOK && (wasDown || c.down.Load()):
			time.Sleep(10 * time.Millisecond)
		case got.status != http.StatusOK:
			c.bad.Store(fmt.Sprintf("status %d while a member lives: %s", got.status, got.body), true)
		case json.Unmarshal([]byte(got.body), &e) != nil || e.RequestURI != nonce:
			c.bad.Store("a response belongs to another request: "+got.body, true)
		case c.members[e.Container] == nil:
			c.bad.Store("a stranger responded: "+e.Container, true)
		case !c.members[e.Container].mayServe(sent) && !c.down.Load():
			c.bad.Store("a container that is not a member responded: "+c.members[e.Container].name, true)
		default:
			c.ok.Add(1)
		}
	}
}

// act does something to a random member. anchor is never touched.
func (c *chaos) act(random *rand.Rand, members []*chaosMember, relay *relay) {
	ctx, m := c.t.Context(), members[random.IntN(len(members))]
	second := 1
	switch action := random.IntN(9); action {
	case 0:
		m.leave()
		_ = c.api.ContainerStop(ctx, m.id, container.StopOptions{Timeout: &second})
	case 1:
		m.leave()
		_ = c.api.ContainerKill(ctx, m.id, "KILL")
	case 2, 3:
		m.join()
		_ = c.api.ContainerStart(ctx, m.id, container.StartOptions{})
	case 4:
		m.leave()
		if c.api.ContainerPause(ctx, m.id) == nil {
			time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
			m.join()
			_ = c.api.ContainerUnpause(ctx, m.id)
		}
	case 5:
		_ = c.api.ContainerRename(ctx, m.id, m.name+strconv.Itoa(random.IntN(1000)))
	case 6:
		m.leave()
		if c.api.NetworkDisconnect(ctx, "bridge", m.id, false) == nil {
			time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
			m.join()
			_ = c.api.NetworkConnect(ctx, "bridge", m.id, nil)
		}
	case 7:
		c.flipHealth(ctx, random, m)
	case 8:
		if time.Since(c.cut) > steadyBefore {
			c.cut = time.Now()
			relay.cutConnections()
		}
	}
}

// flipHealth changes the result of a member's health check.
func (c *chaos) flipHealth(ctx context.Context, random *rand.Rand, m *chaosMember) {
	about, err := c.api.ContainerInspect(ctx, m.id)
	if err != nil || !m.checked || !about.State.Running || about.State.Paused {
		return
	}
	bridge := about.NetworkSettings.Networks["bridge"]
	if bridge == nil || bridge.IPAddress == "" {
		return
	}
	up := random.IntN(2)
	ask := http.Client{Timeout: time.Second}
	response, err := ask.Post("http://"+bridge.IPAddress+":8080/healthz?up="+strconv.Itoa(up), "", nil)
	if err != nil {
		return
	}
	_ = response.Body.Close()
}

// watchHealth follows the results of health checks.
func (c *chaos) watchHealth(ctx context.Context, members []*chaosMember) {
	for ctx.Err() == nil {
		for _, m := range members {
			about, err := c.api.ContainerInspect(ctx, m.id)
			if err != nil || !m.checked || about.State.Health == nil {
				continue
			}
			m.mu.Lock()
			switch sick := about.State.Health.Status != container.Healthy; {
			case sick && m.gone.IsZero():
				m.gone = time.Now()
			case !sick && about.State.Running && !about.State.Paused:
				m.gone = time.Time{}
			}
			m.mu.Unlock()
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// restartEngine kills the engine and starts it again. Its containers end, and start again
// in any order.
func (c *chaos) restartEngine() {
	c.e.end(c.t, syscall.SIGKILL)
	time.Sleep(500 * time.Millisecond) // containers live on without their engine
	c.down.Store(true)
	c.e.start(c.t)
}

// TestChaos changes containers at random under load. No response is lost or comes from a
// container that is not a member, and the gateway's memory and goroutines stay flat.
// `make soak` runs it for a minute.
func TestChaos(t *testing.T) {
	if *chaosFor == 0 {
		t.Skip("make soak runs it")
	}
	e := newBridgedEngine(t, "198.18.201")
	e.takeImage(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	c := &chaos{t: t, e: e, api: e.api, members: make(map[string]*chaosMember)}
	labels := map[string]string{appLabel: appOf(t)}
	check := &container.HealthConfig{Test: []string{"CMD", "/backend", "-healthcheck"}, Interval: 500 * time.Millisecond, Timeout: 2 * time.Second, Retries: 1}
	none := &container.HealthConfig{Test: []string{"NONE"}}
	anchor := c.run("anchor", labels, none)
	var members []*chaosMember
	for i := range 4 {
		health := none
		if i < 2 {
			health = check
		}
		m := c.run("member-"+strconv.Itoa(i), labels, health)
		m.checked = i < 2
		members = append(members, m)
	}
	stranger := c.run("stranger", nil, none)
	c.members[stranger.id[:12]] = nil
	t.Cleanup(func() {
		for _, m := range append(members, anchor, stranger) {
			_ = c.api.ContainerRemove(context.Background(), m.id, container.RemoveOptions{Force: true})
		}
	})

	relay := newRelayTo(t, e.host())
	relay.up(t)
	g := startGateway(t, overRelay(relay))
	testkit.Eventually(t, "all members are found", func() bool { return g.metric(t, "rgate_backend_upstreams", "backend", "web") >= 3 })
	g.awaitStatus(t, "/", http.StatusOK)

	ctx, stop := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	for i := range 3 {
		workers.Go(func() { c.load(ctx, g, i) })
	}
	workers.Go(func() { c.watchHealth(ctx, members) })
	measure := func() (goroutines, heap float64) {
		return g.metric(t, "go_goroutines"), g.metric(t, "go_memstats_heap_alloc_bytes")
	}
	goroutines, heap := measure()
	begun, restarts := time.Now(), 0
	for time.Since(begun) < *chaosFor {
		c.act(random, members, relay)
		switch random.IntN(4) {
		case 0: // a stranger takes a free address
			second := 1
			_ = c.api.ContainerRestart(t.Context(), stranger.id, container.StopOptions{Timeout: &second})
		case 1:
			time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
		}
		if int(time.Since(begun)/(15*time.Second)) > restarts {
			restarts++
			c.restartEngine()
			must(t, "starting the anchor", c.api.ContainerStart(t.Context(), anchor.id, container.StartOptions{}))
			g.awaitStatus(t, "/", http.StatusOK)
			time.Sleep(time.Second)
			c.down.Store(false)
		}
	}
	stop()
	workers.Wait()
	c.bad.Range(func(text, _ any) bool { t.Error(text); return true })
	t.Logf("%d responses, %d restarts of the engine", c.ok.Load(), restarts)
	testkit.Eventually(t, "goroutines and memory are flat", func() bool {
		now, used := measure()
		return now <= goroutines+30 && used <= 2*heap+32<<20
	})
	if strings.Contains(g.output.String(), "panic") {
		t.Errorf("the gateway wrote:\n%s", g.output)
	}
}
