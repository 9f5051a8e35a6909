package scrape

import (
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/bandwidth/storetest"
)

// newTestStore returns a store of the gateway "rgate" on a new or existing database. It
// has no background goroutines.
func newTestStore(t testing.TB, url, node string, clock *storetest.Clock) *store.Store {
	t.Helper()
	at, err := store.ParseAddress(url)
	if err != nil {
		t.Fatal(err)
	}
	l := store.New("rgate", node, at, new(storetest.Recorder), clock.Now, zap.NewNop())
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// sourceTotal returns the bytes recorded for the test source.
func sourceTotal(t *testing.T, l *store.Store) store.Bytes {
	t.Helper()
	total, err := l.Total(t.Context(), store.Filter{Gateways: []string{"kong"}, Services: []string{"s"}}, time.Now().Add(-3*time.Hour), time.Now().Add(3*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return total
}

// Each byte of a source is recorded once, even if gateways or the source restart.
func TestSourcesSurvive(t *testing.T) { storetest.OnBothEngines(t, testSourcesSurvive) }

func testSourcesSurvive(t *testing.T, url string) {
	clock := storetest.ClockAt(t, time.Now().UTC().Format(time.RFC3339))
	kong := newScraperKong(t)
	turn := func(what string, l *store.Store, want int64) *Scraper {
		t.Helper()
		s := scraperOf(t, Source{Name: "kong", URL: kong.URL}, l)
		s.turn(t.Context(), clock.Now())
		if got := s.Status(); got.Status != StatusUp {
			t.Errorf("%s: %+v", what, got)
		}
		if got := sourceTotal(t, l).Egress; got != want {
			t.Errorf("%s: %d bytes, want %d", what, got, want)
		}
		return s
	}
	kong.egress.Store(1000)
	l := newTestStore(t, url, "a", clock)
	turn("the first scrape", l, 0)
	kong.egress.Store(1010)
	turn("after a reload", l, 10)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	kong.egress.Store(1030)
	l = newTestStore(t, url, "a", clock)
	turn("after a restart of rgate", l, 30)
	kong.egress.Store(5)
	first := turn("after one of the source", l, 35)

	// Another gateway on the same database takes over while the first gateway believes
	// that it holds the lease.
	other := newTestStore(t, url, "b", clock)
	kong.egress.Store(7)
	second := scraperOf(t, first.Source, other)
	second.turn(t.Context(), clock.Now())
	if second.Status().Status != StatusStandby {
		t.Errorf("the other is %s", second.Status().Status)
	}
	if _, err := l.DB().Exec(t.Context(), "DELETE FROM leases"); err != nil { // expire the lease
		t.Fatal(err)
	}
	second.turn(t.Context(), clock.Now())
	if _, err := first.scrape(t.Context(), clock.Now()); err != errOvertaken {
		t.Errorf("the first was not overtaken: %v", err)
	}
	if got := sourceTotal(t, l).Egress; got != 37 {
		t.Errorf("they have counted %d", got)
	}
	// Every table contains all bytes.
	for _, step := range []time.Duration{time.Minute, time.Hour, 24 * time.Hour} {
		var sum int64
		points, err := l.Usage(t.Context(), store.Query{Filter: store.Filter{Gateways: []string{"kong"}}, From: clock.Now().Add(-50 * time.Hour), To: clock.Now().Add(24 * time.Hour), Step: step})
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
