package store

import (
	"testing"

	"go.uber.org/zap"

	"github.com/rgate/rgate/bandwidth/storetest"
)

// newTestLedger returns a store of the gateway "rgate" with the node name "test", on a
// new SQLite database. It uses the test's clock and runs no goroutines: tests call
// flushed after Add. It need not be closed.
func newTestLedger(t testing.TB, clock *storetest.Clock) *Store {
	t.Helper()
	return newTestLedgerOn(t, storetest.SQLite(t), "test", clock)
}

// newTestLedgerOn returns a store on a new or existing database.
func newTestLedgerOn(t testing.TB, store, node string, clock *storetest.Clock) *Store {
	t.Helper()
	at, err := ParseAddress(store)
	if err != nil {
		t.Fatal(err)
	}
	l := New("rgate", node, at, new(storetest.Recorder), clock.Now, zap.NewNop())
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// flushed flushes the rows that have been added.
func (l *Store) flushed(t testing.TB) {
	t.Helper()
	if err := l.Flush(t.Context()); err != nil {
		t.Fatalf("flushing: %v", err)
	}
}
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
