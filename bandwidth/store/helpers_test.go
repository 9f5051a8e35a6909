package store

import (
	"testing"

	"go.uber.org/zap"

	"github.com/rgate/rgate/bandwidth/storetest"
)

// newTestLedger makes a ledger of the gateway "rgate" on a new SQLite, whose node is
// called "test". It has a clock of its own and does nothing by itself: call flush
// after Add for what is to be in the database, and close is not needed. LedgerOf finds
// it under the gateway's name if it has been entered.
func newTestLedger(t testing.TB, clock *storetest.Clock) *Store {
	t.Helper()
	return newTestLedgerOn(t, storetest.SQLite(t), "test", clock)
}

// newTestLedgerOn makes one on a store that there may be already.
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

// flushed writes what has been added.
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
