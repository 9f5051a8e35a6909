package integration

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite" // for reading the usage store

	"github.com/rgate/rgate/internal/testkit"
)

// accounted returns a configuration with a usage store and one backend.
func accounted(store, node string, b *meterBackend) string {
	return fmt.Sprintf("bandwidth: {store: %q, node: %s, flush_interval: 1s}\noperations: {path: /gateway}\n"+
		"routes: [{path_prefix: /web, backend: web}]\nbackends: [{name: web, dial: [%q]}]\n", store, node, b.address)
}

// accountIn returns the egress stored in an SQLite store, by table.
func accountIn(t testing.TB, file string) (minutes, hours, days int64) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(5000)")
	must(t, "opening the account", err)
	defer db.Close()
	var health string
	must(t, "looking whether the database is whole", db.QueryRow("PRAGMA integrity_check").Scan(&health))
	if health != "ok" {
		t.Errorf("the database is broken: %s", health)
	}
	for table, sum := range map[string]*int64{"minute": &minutes, "hour": &hours, "day": &days} {
		must(t, "adding up", db.QueryRow("SELECT COALESCE(SUM(egress), 0) FROM bandwidth_"+table).Scan(sum))
	}
	if minutes != hours || hours != days {
		t.Errorf("minutes come to %d, hours to %d, days to %d", minutes, hours, days)
	}
	return minutes, hours, days
}

// lookInto returns the stored egress while the gateway writes to the store.
func lookInto(file string) (n int64) {
	db, err := sql.Open("sqlite", "file:"+file+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		return 0
	}
	defer db.Close()
	_ = db.QueryRow("SELECT COALESCE(SUM(egress), 0) FROM bandwidth_minute").Scan(&n) // the table may not exist yet
	return n
}

// storeLoad holds clients that count the bytes they receive.
type storeLoad struct {
	got     atomic.Int64
	failed  atomic.Int64
	stop    context.CancelFunc
	running sync.WaitGroup
}

func (l *storeLoad) Write(p []byte) (int, error) {
	l.got.Add(int64(len(p)))
	return len(p), nil
}

// startStoreLoad starts clients that send requests sequentially until end is called.
func startStoreLoad(t testing.TB, g *gateway, clients int) *storeLoad {
	ctx, stop := context.WithCancel(context.Background())
	l := &storeLoad{stop: stop}
	for range clients {
		l.running.Go(func() {
			for ctx.Err() == nil {
				request, _ := http.NewRequest("GET", g.url(fmt.Sprintf("/web/any?n=%d", rand.IntN(50_000))), nil)
				response, err := g.client.Do(request)
				if err == nil {
					_, err = io.Copy(l, response.Body)
					_ = response.Body.Close()
				}
				if err != nil {
					l.failed.Add(1)
					select {
					case <-ctx.Done():
					case <-time.After(10 * time.Millisecond):
					}
				}
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

// end stops the clients and waits for requests in flight.
func (l *storeLoad) end() {
	l.stop()
	l.running.Wait()
}

// history records how many bytes were received at what time.
type history []struct {
	at  time.Time
	got int64
}

func (h *history) note(n int64) {
	*h = append(*h, struct {
		at  time.Time
		got int64
	}{time.Now(), n})
}

// before returns the number of bytes received before the given time.
func (h history) before(at time.Time) (n int64) {
	for _, one := range h {
		if one.at.Before(at) {
			n = one.got
		}
	}
	return n
}

// A killed process loses only the bytes counted since its last flush. The flush interval
// is 1 s, and collecting the counters takes up to another second. The test runs 10
// rounds.
func TestKilledGatewayLosesOneFlushAtMost(t *testing.T) {
	t.Parallel()
	const mayLose = 3 * time.Second // tolerates a busy machine
	b := startMeterBackend(t)
	file := filepath.Join(t.TempDir(), "bandwidth.db")
	var written int64
	for round := range 10 {
		sent := b.out.Load()
		g := startGateway(t, accounted("sqlite://"+file, "gw-1", b))
		load := startStoreLoad(t, g, 2)
		var got history
		end := time.Now().Add(3200*time.Millisecond + rand.N(time.Second)) // random, to hit any phase of a flush
		testkit.Eventually(t, "it is time to kill", func() bool {
			got.note(load.got.Load())
			return time.Now().After(end)
		})
		killed := time.Now()
		must(t, "killing the gateway", g.cmd.Process.Kill())
		<-g.exited
		load.end()

		now, _, _ := accountIn(t, file)
		fresh := now - written
		if served := b.out.Load() - sent; fresh > served {
			t.Errorf("round %d: %d bytes are in the account, and %d were served", round, fresh, served)
		}
		if least := got.before(killed.Add(-mayLose)); fresh < least || least == 0 {
			t.Errorf("round %d: %d bytes are in the account, clients had %d when it was to be written", round, fresh, least)
		}
		t.Logf("round %d: %d of %d bytes lost", round, load.got.Load()-fresh, load.got.Load())
		written = now
	}
}

// Requests in flight when the gateway is stopped are counted, including a connection
// whose protocol was switched.
func TestStoppedGatewayWritesEverything(t *testing.T) {
	t.Parallel()
	b := startMeterBackend(t)
	file := filepath.Join(t.TempDir(), "bandwidth.db")
	g := startGateway(t, accounted("sqlite://"+file, "gw-1", b))
	var client meterCount
	tunnel := client.open(t, g)
	load := startStoreLoad(t, g, 4)
	testkit.Eventually(t, "there was traffic", func() bool { return load.got.Load() > 5_000_000 })
	must(t, "stopping the gateway", g.cmd.Process.Signal(syscall.SIGTERM))
	rest, _ := io.Copy(io.Discard, tunnel.reader) // until the gateway closes it
	client.in.Add(rest)
	<-g.exited
	load.end()
	if g.exitCode != 0 {
		t.Errorf("the gateway exited with %d", g.exitCode)
	}
	got := load.got.Load() + client.in.Load()
	if in, _, _ := accountIn(t, file); in != got {
		t.Errorf("%d bytes are in the account, clients got %d", in, got)
	}
}

// reconfigure posts another configuration to the admin API.
func (g *gateway) reconfigure(t testing.TB, config string) {
	t.Helper()
	request, err := http.NewRequest("POST", g.adminURL("/load"), strings.NewReader(strings.ReplaceAll(
		fmt.Sprintf("listen: \":%d\"\nadmin: localhost:%d\n%s", g.port, g.admin, config), "$DIR", filepath.Dir(g.file))))
	must(t, "making a request", err)
	request.Header.Set("Content-Type", "text/rgate")
	loaded, err := do(g.client, request)
	if must(t, "loading a configuration", err); loaded.status != http.StatusOK {
		t.Fatalf("loading a configuration: %d %s", loaded.status, loaded.body)
	}
}

func TestReloadsLoseNothing(t *testing.T) {
	t.Parallel()
	b := startMeterBackend(t)
	first, second := filepath.Join(t.TempDir(), "one.db"), filepath.Join(t.TempDir(), "two.db")
	g := startGateway(t, accounted("sqlite://"+first, "gw-1", b))
	load := startStoreLoad(t, g, 4)
	current := first
	for _, store := range []string{first, second, second, first, second} {
		before := lookInto(current)
		testkit.Eventually(t, "some of it is in the account", func() bool { return lookInto(current) > before })
		g.reconfigure(t, accounted("sqlite://"+store, "gw-1", b))
		current = store
	}
	load.end()
	must(t, "stopping the gateway", g.cmd.Process.Signal(syscall.SIGTERM))
	<-g.exited
	one, _, _ := accountIn(t, first)
	two, _, _ := accountIn(t, second)
	if one == 0 || two == 0 || one+two != load.got.Load() {
		t.Errorf("%d and %d bytes are in the accounts, clients got %d", one, two, load.got.Load())
	}
	if n := load.failed.Load(); n > 0 {
		t.Logf("%d requests met a connection that was being closed", n)
	}
}

// Requests are served while the store cannot be opened.
func TestTrafficGoesOnWithoutStore(t *testing.T) {
	t.Parallel()
	b := startMeterBackend(t)
	folder := filepath.Join(t.TempDir(), "account")
	file := filepath.Join(folder, "bandwidth.db")
	must(t, "putting something in the way", os.WriteFile(folder, nil, 0o600))
	g := startGateway(t, accounted("sqlite://"+file, "gw-1", b))
	load := startStoreLoad(t, g, 2)
	health := func() (gateway, store string) {
		var h struct {
			Status       string
			Dependencies []struct{ Name, Status string }
		}
		must(t, "reading the health", json.Unmarshal([]byte(g.get(t, "/gateway/health").body), &h))
		for _, d := range h.Dependencies {
			if strings.HasPrefix(d.Name, "bandwidth sqlite ") {
				store = d.Status
			}
		}
		return h.Status, store
	}
	isHealth := func(gateway, store string) func() bool {
		return func() bool { g, s := health(); return g == gateway && s == store }
	}
	testkit.Eventually(t, "the store is away", isHealth("degraded", "unhealthy"))
	before := load.got.Load()
	testkit.Eventually(t, "there is traffic", func() bool { return load.got.Load() > before+1_000_000 })
	must(t, "clearing the way", os.Remove(folder))
	testkit.Eventually(t, "the store is back", isHealth("healthy", "healthy"))
	load.end()
	must(t, "stopping the gateway", g.cmd.Process.Signal(syscall.SIGTERM))
	<-g.exited
	if n := load.failed.Load(); n > 0 {
		t.Errorf("%d requests failed", n)
	}
	if in, _, _ := accountIn(t, file); in != load.got.Load() {
		t.Errorf("%d bytes are in the account, clients got %d", in, load.got.Load())
	}
	for message, want := range map[string]int{"writing bandwidth to the store failed": 1, "writing bandwidth to the store succeeded again": 1} {
		if n := strings.Count(g.output.String(), message); n != want {
			t.Errorf("%q was logged %d times", message, n)
		}
	}
}
