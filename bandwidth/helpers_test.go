package bandwidth

import (
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/rgate/rgate/stats"
)

// testClock is a clock that stands still unless it is set. It may be used by several
// ledgers.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

// newTestClock is set to a time such as "2026-03-05T10:00:00Z".
func newTestClock(t testing.TB, text string) *testClock {
	t.Helper()
	return &testClock{now: testTime(t, text)}
}

func testTime(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) Set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

func (c *testClock) Advance(d time.Duration) { c.Set(c.Now().Add(d)) }

// testMeter is a gateway's recorder whose next interval a test sets.
type testMeter struct {
	mu        sync.Mutex
	intervals []stats.Interval
}

func (m *testMeter) add(one ...stats.Interval) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.intervals = append(m.intervals, one...)
}

func (m *testMeter) Drain(f func(stats.Interval)) {
	m.mu.Lock()
	all := m.intervals
	m.intervals = nil
	m.mu.Unlock()
	for _, one := range all {
		f(one)
	}
}

// newTestLedger makes a ledger of the gateway "rgate" on a new SQLite, whose node is
// called "test". It has a clock of its own and does nothing by itself: call flush
// after Add for what is to be in the database, and close is not needed. LedgerOf finds
// it under the gateway's name if it has been entered.
func newTestLedger(t testing.TB, clock *testClock) *Ledger {
	t.Helper()
	return newTestLedgerOn(t, sqliteStore(t), "test", clock)
}

// newTestLedgerOn makes one on a store that there may be already.
func newTestLedgerOn(t testing.TB, store, node string, clock *testClock) *Ledger {
	t.Helper()
	at, err := parseAddress(store)
	if err != nil {
		t.Fatal(err)
	}
	l := newLedger("rgate", node, at, new(testMeter), clock.Now, zap.NewNop())
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// flushed writes what has been added.
func (l *Ledger) flushed(t testing.TB) {
	t.Helper()
	if err := l.flush(t.Context()); err != nil {
		t.Fatalf("flushing: %v", err)
	}
}
