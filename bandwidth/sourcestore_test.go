package bandwidth

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
)

// sourceTotal is what the account has of the source of a test.
func sourceTotal(t *testing.T, l *Ledger) Bytes {
	t.Helper()
	total, err := l.Total(t.Context(), Filter{Gateways: []string{"kong"}, Services: []string{"s"}}, time.Now().Add(-3*time.Hour), time.Now().Add(3*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return total
}

// Whatever ends in the meantime, a byte of a source is in the account once.
func TestSourcesSurvive(t *testing.T) { onBothEngines(t, testSourcesSurvive) }

func testSourcesSurvive(t *testing.T, store string) {
	clock := newTestClock(t, time.Now().UTC().Format(time.RFC3339))
	kong := newScraperKong(t)
	turn := func(what string, l *Ledger, want int64) *scraper {
		t.Helper()
		s := scraperOf(t, Source{Name: "kong", URL: kong.URL}, l)
		s.turn(t.Context(), clock.Now())
		if got := s.report(); got.Status != sourceUp {
			t.Errorf("%s: %+v", what, got)
		}
		if got := sourceTotal(t, l).Egress; got != want {
			t.Errorf("%s: %d bytes, want %d", what, got, want)
		}
		return s
	}
	kong.egress.Store(1000)
	l := newTestLedgerOn(t, store, "a", clock)
	turn("the first scrape", l, 0)
	kong.egress.Store(1010)
	turn("after a reload", l, 10)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	kong.egress.Store(1030)
	l = newTestLedgerOn(t, store, "a", clock)
	turn("after a restart of rgate", l, 30)
	kong.egress.Store(5)
	first := turn("after one of the source", l, 35)

	// Another gateway on the same database takes over while the first still believes
	// that it is its turn.
	other := newTestLedgerOn(t, store, "b", clock)
	kong.egress.Store(7)
	second := scraperOf(t, first.Source, other)
	second.turn(t.Context(), clock.Now())
	if second.report().Status != sourceStandby {
		t.Errorf("the other is %s", second.report().Status)
	}
	if _, err := l.db.Exec(t.Context(), "DELETE FROM leases"); err != nil { // it has run out
		t.Fatal(err)
	}
	second.turn(t.Context(), clock.Now())
	if _, err := first.scrape(t.Context(), clock.Now()); err != errOvertaken {
		t.Errorf("the first was not overtaken: %v", err)
	}
	if got := sourceTotal(t, l).Egress; got != 37 {
		t.Errorf("they have counted %d", got)
	}
	// Every table has all of it.
	for _, step := range []time.Duration{time.Minute, time.Hour, 24 * time.Hour} {
		var sum int64
		points, err := l.Usage(t.Context(), Query{Filter: Filter{Gateways: []string{"kong"}}, From: clock.Now().Add(-50 * time.Hour), To: clock.Now().Add(24 * time.Hour), Step: step})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range points {
			sum += p.Egress
		}
		if sum != 37 {
			t.Errorf("by %s: %d", step, sum)
		}
	}
}

func TestSourcesRecordAllOrNothing(t *testing.T) { onBothEngines(t, testSourcesRecord) }

func testSourcesRecord(t *testing.T, store string) {
	l := newTestLedgerOn(t, store, "test", newTestClock(t, "2026-03-05T10:00:00Z"))
	since := time.Unix(100, 0)
	m, number, err := l.recall(t.Context(), "kong", since)
	if err != nil || number != 0 || m.since != 100 || m.scraped != 0 {
		t.Fatalf("got %+v %d %v", m, number, err)
	}
	now := remembered{since: 100, scraped: 200, started: 50.25, values: map[string]int64{"a": 1, "b": 2}}
	bytes := map[Key]Bytes{{"s", "r", ""}: {Ingress: 5}, {"s", "r", "alice"}: {Ingress: 5}}
	for i, want := range []bool{true, false} {
		if done, err := l.record(t.Context(), "kong", 0, l.now(), bytes, m, now); err != nil || done != want {
			t.Errorf("record %d: %t %v", i, done, err)
		}
	}
	got, number, err := l.recall(t.Context(), "kong", time.Now())
	if err != nil || number != 1 || fmt.Sprint(got) != fmt.Sprint(now) {
		t.Errorf("got %+v %d %v, want %+v", got, number, err, now)
	}
	next := remembered{scraped: 300, values: map[string]int64{"b": 3}}
	if done, err := l.record(t.Context(), "kong", 1, l.now(), nil, got, next); err != nil || !done {
		t.Errorf("%t %v", done, err)
	}
	got, _, _ = l.recall(t.Context(), "kong", time.Now())
	if len(got.values) != 1 || got.values["b"] != 3 {
		t.Errorf("got %v", got.values)
	}
	total, err := l.Total(t.Context(), Filter{Consumers: []string{"alice"}}, l.now().Add(-time.Hour), l.now().Add(time.Hour))
	if err != nil || total.Ingress != 5 {
		t.Errorf("alice has %+v %v", total, err)
	}
}

// A scrape of many counters does not take long to record.
func BenchmarkSourceRecord(b *testing.B) {
	clock := &testClock{now: time.Now()}
	at, err := parseAddress("sqlite://" + filepath.Join(b.TempDir(), "bandwidth.db"))
	if err != nil {
		b.Fatal(err)
	}
	l := newLedger("rgate", "test", at, new(testMeter), clock.Now, zap.NewNop())
	defer l.Close()
	before, number, err := l.recall(b.Context(), "kong", clock.Now())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		now := remembered{scraped: number + 1, values: make(map[string]int64)}
		bytes := make(map[Key]Bytes)
		for i := range 100 {
			now.values[fmt.Sprint(i)] = number
			bytes[Key{Service: fmt.Sprint(i)}] = Bytes{Egress: 1}
		}
		if done, err := l.record(b.Context(), "kong", number, clock.Now(), bytes, before, now); err != nil || !done {
			b.Fatal(done, err)
		}
		before, number = now, number+1
	}
}

// What a source says is no more to be trusted than what the gateway counts.
func TestSourcesWithNamesThatADatabaseRefuses(t *testing.T) {
	onBothEngines(t, func(t *testing.T, store string) {
		l := newTestLedgerOn(t, store, "a", newTestClock(t, "2026-03-05T10:00:30Z"))
		m, number, err := l.recall(t.Context(), "kong", l.now())
		if err != nil {
			t.Fatal(err)
		}
		done, err := l.record(t.Context(), "kong", number, l.now(), map[Key]Bytes{
			{Service: "a\x00b"}:   {Egress: 1},
			{Service: "a\uFFFDb"}: {Egress: 2},
			{Service: "absurd"}:   {Egress: 1 << 60},
		}, m, m)
		if !done || err != nil {
			t.Fatalf("not recorded: %v", err)
		}
		points, err := l.Usage(t.Context(), Query{From: l.now().Add(-time.Minute), To: l.now(), Step: time.Minute, GroupBy: []Dimension{ByService}})
		if err != nil || len(points) != 1 || points[0].Service != "a\uFFFDb" || points[0].Egress != 3 {
			t.Errorf("the account has %+v, %v", points, err)
		}
	})
}
