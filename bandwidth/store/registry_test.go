package store

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth/storetest"
	"github.com/rgate/rgate/stats"
)

// takeLedger acquires a gateway's store like a configuration does.
func takeLedger(t *testing.T, gateway, store string) (l *Store, release func()) {
	t.Helper()
	at, err := ParseAddress(store)
	must(t, err)
	key := ID{gateway, store, "test"}
	l, err = Acquire(key, at, Settings{FlushInterval: DefaultFlushInterval, Retention: DefaultRetention})
	must(t, err)
	return l, func() { t.Helper(); must(t, Release(key)) }
}

// recorderOf returns a function that records requests of a gateway.
func recorderOf(t *testing.T, gateway string) (record func(n int)) {
	t.Helper()
	rec, release, err := stats.HoldRecorder(gateway)
	must(t, err)
	t.Cleanup(func() { must(t, release()) })
	series := rec.Series("/pay", "pay")
	t.Cleanup(func() { rec.Release(series) })
	return func(n int) {
		for range n {
			series.Record(200, time.Millisecond)
		}
	}
}

// requestsIn returns the number of requests in a store.
func requestsIn(t *testing.T, store string) (n int) {
	t.Helper()
	l := newTestLedgerOn(t, store, "reader", storetest.ClockAt(t, "2026-03-05T10:00:30Z"))
	must(t, l.DB().QueryRow(t.Context(), "SELECT CAST(COALESCE(SUM(requests), 0) AS BIGINT) FROM answers_day").Scan(&n))
	must(t, l.Close())
	return n
}

func TestLastReleaseWritesEverything(t *testing.T) {
	store, record := storetest.SQLite(t), recorderOf(t, t.Name())
	_, release := takeLedger(t, t.Name(), store)
	_, releaseToo := takeLedger(t, t.Name(), store)
	record(3)
	release()
	record(4)
	releaseToo()
	if n := requestsIn(t, store); n != 7 {
		t.Errorf("the store has %d requests, not 7", n)
	}
	if For(t.Name()) != nil {
		t.Error("the ledger is still there")
	}
}

func TestStoreChanges(t *testing.T) {
	first, second, record := storetest.SQLite(t), storetest.SQLite(t), recorderOf(t, t.Name())
	a, release := takeLedger(t, t.Name(), first)
	record(3)
	a.Collect()
	b, releaseToo := takeLedger(t, t.Name(), second)
	if For(t.Name()) != b || a.isCurrent() {
		t.Error("the newest configuration's ledger is not the current one")
	}
	record(4)
	release()
	record(5)
	releaseToo()
	if one, two := requestsIn(t, first), requestsIn(t, second); one < 3 || one+two != 12 {
		t.Errorf("the stores have %d and %d requests, together not 12", one, two)
	}
}

func TestStoreThatIsAwayIsLeftForAnother(t *testing.T) {
	wrong, right, record := "sqlite:///dev/null/bandwidth.db", storetest.SQLite(t), recorderOf(t, t.Name())
	a, release := takeLedger(t, t.Name(), wrong)
	record(3)
	a.Collect()
	if err := a.Flush(t.Context()); err == nil {
		t.Fatal("a file was written to as a folder")
	}
	_, releaseToo := takeLedger(t, t.Name(), right)
	if err := Release(ID{t.Name(), wrong, "test"}); err == nil {
		t.Error("the problem of the old store was not reported")
	}
	_ = release
	releaseToo()
	if n := requestsIn(t, right); n != 3 {
		t.Errorf("the new store has %d requests, not 3", n)
	}
}

func TestFailedConfigurationTakesNothing(t *testing.T) {
	first, second, record := storetest.SQLite(t), storetest.SQLite(t), recorderOf(t, t.Name())
	_, release := takeLedger(t, t.Name(), first)
	record(3)
	b, releaseToo := takeLedger(t, t.Name(), second)
	b.Collect()
	releaseToo()
	record(4)
	release()
	if n := requestsIn(t, first); n != 7 {
		t.Errorf("the store has %d requests, not 7", n)
	}
	if files, _ := filepath.Glob(filepath.Dir(b.db.Path) + "/*"); len(files) > 0 {
		t.Errorf("the configuration that failed has left %q", files)
	}
}

func TestValidatingMakesNoDatabase(t *testing.T) {
	l, release := takeLedger(t, t.Name(), storetest.SQLite(t))
	release()
	if files, _ := filepath.Glob(filepath.Dir(l.db.Path) + "/*"); len(files) > 0 {
		t.Errorf("there are %q", files)
	}
}

func TestNamesThatADatabaseRefuses(t *testing.T) {
	storetest.OnBothEngines(t, testNamesThatADatabaseRefuses)
}

func testNamesThatADatabaseRefuses(t *testing.T, store string) {
	l := newTestLedgerOn(t, store, "test", storetest.ClockAt(t, "2026-03-05T10:00:30Z"))
	long := make([]byte, 5000)
	for i := range long {
		long[i] = "é"[i%2]
	}
	for _, consumer := range []string{"a\x00b", "a\xffb", string(long), "o'hara; DROP TABLE series", "?"} {
		l.Add("test", map[Key]Bytes{{string(long), string(long), consumer}: {Egress: 1}, {Consumer: "absurd"}: {Egress: -1}, {Consumer: "too"}: {Egress: 1 << 60}})
		l.flushed(t)
	}
	_, _, consumers, _, err := l.Names(t.Context(), l.now())
	if err != nil || len(consumers) != 5 || consumers[3] != "o'hara; DROP TABLE series" {
		t.Errorf("consumers are %q, %v", consumers, err)
	}
}
