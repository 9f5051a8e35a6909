package store

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/rgate/rgate/bandwidth/storetest"
)

func TestSourcesRecordAllOrNothing(t *testing.T) { storetest.OnBothEngines(t, testSourcesRecord) }

func testSourcesRecord(t *testing.T, store string) {
	l := newTestLedgerOn(t, store, "test", storetest.ClockAt(t, "2026-03-05T10:00:00Z"))
	since := time.Unix(100, 0)
	m, number, err := l.LoadSource(t.Context(), "kong", since)
	if err != nil || number != 0 || m.Since != 100 || m.Scraped != 0 {
		t.Fatalf("got %+v %d %v", m, number, err)
	}
	now := SourceState{Since: 100, Scraped: 200, Started: 50.25, Values: map[string]int64{"a": 1, "b": 2}}
	bytes := map[Key]Bytes{{"s", "r", ""}: {Ingress: 5}, {"s", "r", "alice"}: {Ingress: 5}}
	for i, want := range []bool{true, false} {
		if done, err := l.SaveSource(t.Context(), "kong", 0, l.now(), bytes, m, now); err != nil || done != want {
			t.Errorf("record %d: %t %v", i, done, err)
		}
	}
	got, number, err := l.LoadSource(t.Context(), "kong", time.Now())
	if err != nil || number != 1 || fmt.Sprint(got) != fmt.Sprint(now) {
		t.Errorf("got %+v %d %v, want %+v", got, number, err, now)
	}
	next := SourceState{Scraped: 300, Values: map[string]int64{"b": 3}}
	if done, err := l.SaveSource(t.Context(), "kong", 1, l.now(), nil, got, next); err != nil || !done {
		t.Errorf("%t %v", done, err)
	}
	got, _, _ = l.LoadSource(t.Context(), "kong", time.Now())
	if len(got.Values) != 1 || got.Values["b"] != 3 {
		t.Errorf("got %v", got.Values)
	}
	total, err := l.Total(t.Context(), Filter{Consumers: []string{"alice"}}, l.now().Add(-time.Hour), l.now().Add(time.Hour))
	if err != nil || total.Ingress != 5 {
		t.Errorf("alice has %+v %v", total, err)
	}
}

// BenchmarkSourceRecord records a scrape with many counters.
func BenchmarkSourceRecord(b *testing.B) {
	clock := storetest.NewClock(time.Now())
	at, err := ParseAddress("sqlite://" + filepath.Join(b.TempDir(), "bandwidth.db"))
	if err != nil {
		b.Fatal(err)
	}
	l := New("rgate", "test", at, new(storetest.Recorder), clock.Now, zap.NewNop())
	defer l.Close()
	before, number, err := l.LoadSource(b.Context(), "kong", clock.Now())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		now := SourceState{Scraped: number + 1, Values: make(map[string]int64)}
		bytes := make(map[Key]Bytes)
		for i := range 100 {
			now.Values[fmt.Sprint(i)] = number
			bytes[Key{Service: fmt.Sprint(i)}] = Bytes{Egress: 1}
		}
		if done, err := l.SaveSource(b.Context(), "kong", number, clock.Now(), bytes, before, now); err != nil || !done {
			b.Fatal(done, err)
		}
		before, number = now, number+1
	}
}

// Names from a source are cleaned like names from the gateway.
func TestSourcesWithNamesThatADatabaseRefuses(t *testing.T) {
	storetest.OnBothEngines(t, func(t *testing.T, store string) {
		l := newTestLedgerOn(t, store, "a", storetest.ClockAt(t, "2026-03-05T10:00:30Z"))
		m, number, err := l.LoadSource(t.Context(), "kong", l.now())
		if err != nil {
			t.Fatal(err)
		}
		done, err := l.SaveSource(t.Context(), "kong", number, l.now(), map[Key]Bytes{
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
