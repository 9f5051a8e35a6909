package store

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth/storetest"
)

// TotalsByKey returns the Total of each key and no other keys, also if minute and hour
// rows are deleted except around a mark.
func TestBreakdownIsTotalByKey(t *testing.T) {
	storetest.OnBothEngines(t, func(t *testing.T, store string) {
		random := rand.New(rand.NewPCG(5, 6))
		clock := storetest.ClockAt(t, "2026-02-27T13:07:00Z")
		begin := clock.Now()
		l := newTestLedgerOn(t, store, "test", clock)
		l.settings.Retention = Retention{Minutes: 2 * 24 * time.Hour, Hours: 4 * 24 * time.Hour, Days: 30 * 24 * time.Hour}
		all := fill(t, l, clock, random, 10) // the last rows are not flushed
		now := clock.Now().Add(time.Minute)
		for range 30 {
			from := begin.Add(time.Duration(random.IntN(9*24*60)) * time.Minute)
			to := from.Add(time.Duration(random.IntN(3*24*60)) * time.Minute)
			checkBreakdown(t, l, all, from, to)
		}
		checkBreakdown(t, l, all, begin, now)
		marked := all[20].Minute
		defer l.Mark(marked)()
		l.flushed(t)
		if err := l.prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkBreakdown(t, l, all, marked, now)
		checkBreakdown(t, l, all, begin.Truncate(24*time.Hour), now)
		checkBreakdown(t, l, all, now.Add(-37*time.Hour), now)
	})
}

func checkBreakdown(t *testing.T, l *Store, all modelAccount, from, to time.Time) {
	t.Helper()
	for _, consumers := range []bool{false, true} {
		got, err := l.TotalsByKey(t.Context(), consumers, from, to)
		if err != nil {
			t.Fatal(err)
		}
		var sum Bytes
		for key, n := range got {
			f := Filter{Services: []string{key.Service}, Routes: []string{key.Route}}
			if consumers {
				f.Consumers = []string{key.Consumer}
			}
			if want := all.total(f, from, to); n != want || (key.Consumer != "") != consumers {
				t.Errorf("%+v from %s to %s: got %+v, want %+v", key, from, to, n, want)
			}
			sum.Add(n)
		}
		f := Filter{}
		if consumers {
			f.Consumers = []string{"c0", "c1"}
		}
		if want := all.total(f, from, to); sum != want {
			t.Errorf("all from %s to %s: got %+v, want %+v", from, to, sum, want)
		}
	}
}
