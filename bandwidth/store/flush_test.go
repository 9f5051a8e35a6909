package store

import (
	"context"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rgate/rgate/bandwidth/storetest"
	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/stats"
)

var (
	pay   = Key{Service: "pay", Route: "/pay"}
	allOf = Filter{}
)

// addPay counts n bytes of egress.
func (l *Store) addPay(n int64) { l.Add(l.node, map[Key]Bytes{pay: {Egress: n}}) }

// egress returns the egress bytes of the last two days.
func (l *Store) egress(t testing.TB) int64 {
	t.Helper()
	total, err := l.Total(t.Context(), allOf, l.now().Add(-48*time.Hour), l.now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return total.Egress
}

func TestBatchIsWrittenOnce(t *testing.T) { storetest.OnBothEngines(t, testBatchIsWrittenOnce) }

// COMMIT takes effect, but its response is lost.
func testBatchIsWrittenOnce(t *testing.T, store string) {
	l := newTestLedgerOn(t, store, "test", storetest.ClockAt(t, "2026-03-05T10:00:30Z"))
	l.addPay(10)
	l.flushed(t)
	l.addPay(20)
	l.mu.Lock()
	l.writing, l.seq = l.pending.take(maxBatch), l.seq+1
	b, seq := l.writing, l.seq
	l.mu.Unlock()
	if err := l.write(t.Context(), b, seq); err != nil {
		t.Fatal(err)
	}
	l.addPay(40) // while the outcome is unknown
	if n := l.egress(t); n != 70 {
		t.Errorf("before the batch is sent again, %d bytes are counted, not 70", n)
	}
	l.flushed(t)
	if n := l.egress(t); n != 70 {
		t.Errorf("after the batch was sent again, %d bytes are counted, not 70", n)
	}
	if l.hasRows() {
		t.Error("there are rows left")
	}
}

// cutProxy forwards connections to a server until it is cut.
type cutProxy struct {
	listener net.Listener
	cut      atomic.Bool
	mu       sync.Mutex
	conns    []net.Conn
	running  sync.WaitGroup
}

func newCutProxy(t *testing.T, network, server string) *cutProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &cutProxy{listener: listener}
	p.running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			back, err := net.Dial(network, server)
			p.mu.Lock()
			if err != nil || p.cut.Load() {
				_ = client.Close()
			} else {
				p.conns = append(p.conns, client, back)
				p.running.Go(func() { _, _ = io.Copy(back, client); _ = back.Close() })
				p.running.Go(func() { _, _ = io.Copy(client, back); _ = client.Close() })
			}
			p.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.setCut(true)
		p.running.Wait()
	})
	return p
}

func (p *cutProxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut.Store(cut)
	if cut {
		for _, conn := range p.conns {
			_ = conn.Close()
		}
		p.conns = nil
	}
}

// away returns a store URL, and functions that make the database unavailable and
// available again.
func away(t *testing.T, engine string) (store string, take, give func()) {
	if engine == "sqlite" {
		folder := filepath.Join(t.TempDir(), "folder")
		file := filepath.Join(folder, "bandwidth.db")
		return "sqlite://" + file,
			func() { must(t, os.RemoveAll(folder)); must(t, os.WriteFile(folder, nil, 0o600)) },
			func() { must(t, os.Remove(folder)) }
	}
	u, err := url.Parse(storetest.Postgres(t))
	must(t, err)
	query := u.Query()
	proxy := newCutProxy(t, "unix", filepath.Join(query.Get("host"), ".s.PGSQL.5432"))
	query.Del("host")
	u.Host, u.RawQuery = proxy.listener.Addr().String(), query.Encode()
	return u.String() + "&sslmode=disable", func() { proxy.setCut(true) }, func() { proxy.setCut(false) }
}

// withLog replaces the store's logger and returns its log entries.
func (l *Store) withLog() *observer.ObservedLogs {
	core, logs := observer.New(zap.InfoLevel)
	l.logger = zap.New(core)
	return logs
}

func TestStoreGoesAwayAndComesBack(t *testing.T) {
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			store, take, give := away(t, engine)
			clock := storetest.ClockAt(t, "2026-03-05T10:00:30Z")
			l := newTestLedgerOn(t, store, "test", clock)
			logs := l.withLog()
			if engine == "postgres" { // a removed SQLite file is not restored
				l.addPay(1)
				l.flushed(t)
			}
			take()
			for range 3 {
				l.addPay(10)
				clock.Advance(time.Minute)
				if err := l.Flush(t.Context()); err == nil {
					t.Fatal("a store that is away was written to")
				}
			}
			if ok, problem := l.Health(); ok || problem == "" {
				t.Errorf("health is %t, %q", ok, problem)
			}
			give()
			l.addPay(100)
			l.flushed(t)
			want := int64(130)
			if engine == "postgres" {
				want++
			}
			if n := l.egress(t); n != want {
				t.Errorf("%d bytes are counted, not %d", n, want)
			}
			if ok, problem := l.Health(); !ok || problem != "" {
				t.Errorf("health is %t, %q", ok, problem)
			}
			if logs.Len() != 2 || !strings.Contains(logs.All()[1].Message, "again") {
				t.Errorf("logged %+v", logs.All())
			}
		})
	}
}

// A SQLite file that is removed while it is open is created again, and later rows are
// written to the new file.
func TestRemovedFileIsMadeAnew(t *testing.T) {
	l := newTestLedger(t, storetest.ClockAt(t, "2026-03-05T10:00:30Z"))
	l.addPay(1)
	l.flushed(t)
	must(t, os.Remove(l.db.Path))
	l.addPay(10)
	l.flushed(t)
	if n := l.egress(t); n != 10 {
		t.Errorf("the new file has %d bytes, not 10", n)
	}
	info, err := os.Stat(l.db.Path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %s: others can read it", info.Mode())
	}
}

func TestBrokenFileIsLeftAlone(t *testing.T) {
	l := newTestLedger(t, storetest.ClockAt(t, "2026-03-05T10:00:30Z"))
	content := strings.Repeat("this is no database", 1000)
	must(t, os.WriteFile(l.db.Path, []byte(content), 0o600))
	l.addPay(1)
	if err := l.Flush(t.Context()); err == nil {
		t.Fatal("it was written to")
	}
	after, err := os.ReadFile(l.db.Path)
	if err != nil || string(after) != content {
		t.Errorf("the file has changed (%v)", err)
	}
	must(t, os.Remove(l.db.Path))
	l.flushed(t)
	if n := l.egress(t); n != 1 {
		t.Errorf("%d bytes are counted, not 1", n)
	}
}

func TestGatewaysShareADatabase(t *testing.T) { storetest.OnBothEngines(t, testGatewaysShareADatabase) }

func testGatewaysShareADatabase(t *testing.T, store string) {
	clock := storetest.ClockAt(t, "2026-03-05T10:00:30Z")
	var ledgers []*Store
	var working sync.WaitGroup
	for _, node := range []string{"a", "b", "b"} { // two gateways with the same node name
		l := newTestLedgerOn(t, store, node, clock)
		ledgers = append(ledgers, l)
		sketch := sketchOf(t, time.Second)
		working.Go(func() {
			for range 20 {
				l.addPay(1)
				l.recorder.(*storetest.Recorder).Add(stats.Interval{Route: "/pay", Backend: "pay", Requests: 1, Seconds: 1, Sketch: sketch,
					Traffic: stats.Traffic{EgressBody: 1}})
				l.Collect()
				if err := l.Flush(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	for _, l := range ledgers {
		if n := l.egress(t); n != 3*2*20 {
			t.Errorf("%d bytes are counted, not 120", n)
		}
	}
	points, err := ledgers[0].Requests(t.Context(), Query{From: clock.Now(), To: clock.Now(), Step: time.Hour, GroupBy: []Dimension{ByGateway}})
	if err != nil || len(points) != 2 || points[0].Requests != 20 || points[1].Requests != 40 {
		t.Fatalf("requests are %+v, %v", points, err)
	}
	for _, p := range points {
		if n := countOf(t, p.Sketch); n != float64(p.Requests) {
			t.Errorf("the sketch of %s has %g requests, not %d", p.Gateway, n, p.Requests)
		}
	}
	_, _, _, gateways, err := ledgers[0].Names(t.Context(), clock.Now())
	if err != nil || strings.Join(gateways, " ") != "a b" {
		t.Errorf("the gateways are %q, %v", gateways, err)
	}
}

func TestLeaseIsHeldByOne(t *testing.T) { storetest.OnBothEngines(t, testLeaseIsHeldByOne) }

func testLeaseIsHeldByOne(t *testing.T, store string) {
	clock := storetest.NewClock(time.Now())
	a, b := newTestLedgerOn(t, store, "a", clock), newTestLedgerOn(t, store, "a", clock)
	holds := func(l *Store, ttl time.Duration) bool {
		t.Helper()
		held, err := l.Lease(t.Context(), "scrape kong", ttl)
		must(t, err)
		return held
	}
	if !holds(a, time.Minute) || holds(b, time.Minute) || !holds(a, 50*time.Millisecond) {
		t.Fatal("not the first one holds the lease")
	}
	testkit.Eventually(t, "the lease ends", func() bool { clock.Set(time.Now()); return holds(b, time.Minute) })
	if holds(a, time.Minute) {
		t.Fatal("two hold the lease")
	}
	b.addPay(1)
	must(t, b.Close())
	if !holds(a, time.Minute) {
		t.Fatal("the lease is free, and cannot be acquired")
	}
}

func TestMigrationsAtOnce(t *testing.T) { storetest.OnBothEngines(t, testMigrationsAtOnce) }

func testMigrationsAtOnce(t *testing.T, store string) {
	clock := storetest.ClockAt(t, "2026-03-05T10:00:30Z")
	var working sync.WaitGroup
	for range 4 {
		l := newTestLedgerOn(t, store, "a", clock)
		working.Go(func() {
			if _, err := l.db.open(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	working.Wait()
}

func TestAfterFlush(t *testing.T) {
	l := newTestLedger(t, storetest.ClockAt(t, "2026-03-05T10:00:30Z"))
	var calls, running atomic.Int32
	release := make(chan struct{})
	stop := l.AfterFlush(func() {
		if running.Add(1) != 1 {
			t.Error("it runs twice at once")
		}
		calls.Add(1)
		<-release
		running.Add(-1)
	})
	l.flushed(t)
	testkit.Eventually(t, "the first call", func() bool { return calls.Load() == 1 })
	for range 5 {
		l.flushed(t)
	}
	close(release)
	testkit.Eventually(t, "one for those that came meanwhile", func() bool { return calls.Load() == 2 })
	stop()
	l.flushed(t)
	if calls.Load() != 2 {
		t.Errorf("%d calls, not 2", calls.Load())
	}
}
