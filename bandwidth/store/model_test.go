package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth/storetest"
)

// modelAccount is the reference model of a store: a list of all rows that were added.
type modelAccount []Row

func (a modelAccount) admitted(f Filter) (rows modelAccount) {
	for _, row := range a {
		if admits(f.Gateways, row.Gateway) && admits(f.Services, row.Service) && admits(f.Routes, row.Route) &&
			(row.Consumer != "") == (len(f.Consumers) > 0) && admits(f.Consumers, row.Consumer) {
			rows = append(rows, row)
		}
	}
	return rows
}

func (a modelAccount) total(f Filter, from, to time.Time) (sum Bytes) {
	for _, row := range a.admitted(f) {
		if !row.Minute.Before(from) && row.Minute.Before(to) {
			sum.Add(row.Bytes)
		}
	}
	return sum
}

// usage sums bytes by service, in windows aligned to multiples of the step.
func (a modelAccount) usage(f Filter, from, to time.Time, step time.Duration) map[string]Bytes {
	sums := make(map[string]Bytes)
	for _, row := range a.admitted(f) {
		start := row.Minute.Truncate(step) // Truncate counts from year 1, which began on a Monday
		if start.Before(from.Truncate(step)) || !start.Before(to) {
			continue
		}
		key := fmt.Sprint(start.UTC(), " ", row.Service)
		sum := sums[key]
		sum.Add(row.Bytes)
		sums[key] = sum
	}
	return sums
}

// fill adds random bytes at random times over some days, with occasional flushes.
func fill(t *testing.T, l *Store, clock *storetest.Clock, random *rand.Rand, days int) (all modelAccount) {
	t.Helper()
	begin := clock.Now()
	var minutes []int
	for range 300 {
		minutes = append(minutes, random.IntN(days*24*60))
	}
	slices.Sort(minutes)
	for _, m := range minutes {
		clock.Set(begin.Add(time.Duration(m) * time.Minute))
		row := Row{
			Minute: clock.Now(), Gateway: fmt.Sprint("gw-", random.IntN(2)),
			Key:   Key{Service: fmt.Sprint("s", random.IntN(3)), Route: fmt.Sprint("/r", random.IntN(2))},
			Bytes: Bytes{random.Int64N(1000), random.Int64N(1 << 40), random.Int64N(100), random.Int64N(100)},
		}
		if random.IntN(4) == 0 {
			row.Consumer = fmt.Sprint("c", random.IntN(2))
		}
		all = append(all, row)
		l.Add(row.Gateway, map[Key]Bytes{row.Key: row.Bytes})
		if random.IntN(10) == 0 {
			l.flushed(t)
		}
	}
	return all
}

var filters = []Filter{
	{}, {Services: []string{"s1"}}, {Services: []string{"s0", "s2"}, Routes: []string{"/r1"}}, {Gateways: []string{"gw-1"}},
	{Consumers: []string{"c0"}}, {Services: []string{"s1"}, Consumers: []string{"c0", "c1"}}, {Services: []string{"unknown"}},
}

func TestLedgerAddsUp(t *testing.T) { storetest.OnBothEngines(t, testLedgerAddsUp) }

func testLedgerAddsUp(t *testing.T, store string) {
	random := rand.New(rand.NewPCG(1, 2))
	clock := storetest.ClockAt(t, "2026-02-27T13:07:00Z")
	begin := clock.Now()
	l := newTestLedgerOn(t, store, "test", clock)
	all := fill(t, l, clock, random, 5) // the last rows are not flushed
	checkUsage(t, l, all, begin, clock.Now().Add(time.Minute))
	for range 100 {
		from := begin.Add(time.Duration(random.IntN(5*24*60)) * time.Minute)
		to := from.Add(time.Duration(random.IntN(3*24*60)) * time.Minute)
		checkTotal(t, l, all, filters[random.IntN(len(filters))], from, to)
	}
}

func checkTotal(t *testing.T, l *Store, all modelAccount, f Filter, from, to time.Time) {
	t.Helper()
	got, err := l.Total(t.Context(), f, from, to)
	if want := all.total(f, from, to); err != nil || got != want {
		t.Errorf("total of %+v from %s to %s is %+v (%v), want %+v", f, from, to, got, err, want)
	}
}

func checkUsage(t *testing.T, l *Store, all modelAccount, from, to time.Time) {
	t.Helper()
	for _, step := range []time.Duration{time.Minute, 5 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour} {
		for _, f := range filters {
			points, err := l.Usage(t.Context(), Query{Filter: f, From: from, To: to, Step: step, GroupBy: []Dimension{ByService}})
			if err != nil {
				t.Fatal(err)
			}
			want := all.usage(f, from, to, step)
			for _, p := range points {
				if key := fmt.Sprint(p.Start, " ", p.Service); want[key] != p.Bytes {
					t.Errorf("step %s, %+v: the point of %s is %+v, want %+v", step, f, key, p.Bytes, want[key])
				}
			}
			if len(points) != len(want) || !slices.IsSortedFunc(points, func(a, b Point) int { return a.Start.Compare(b.Start) }) {
				t.Errorf("step %s, %+v: %d points, want %d in order", step, f, len(points), len(want))
			}
		}
	}
}

func TestPruningKeepsSums(t *testing.T) { storetest.OnBothEngines(t, testPruningKeepsSums) }

func testPruningKeepsSums(t *testing.T, store string) {
	random := rand.New(rand.NewPCG(3, 4))
	clock := storetest.ClockAt(t, "2026-02-27T13:07:00Z")
	begin := clock.Now()
	l := newTestLedgerOn(t, store, "test", clock)
	l.settings.Retention = Retention{Minutes: 2 * 24 * time.Hour, Hours: 4 * 24 * time.Hour, Days: 30 * 24 * time.Hour}
	all := fill(t, l, clock, random, 10)
	// A period that started in the middle of an hour, after minute and hour rows were
	// deleted.
	marked := all[20].Minute
	unmark := l.Mark(marked)
	l.flushed(t)
	if err := l.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := clock.Now().Add(time.Minute)
	checkTotal(t, l, all, Filter{}, begin.Truncate(24*time.Hour), now)
	checkTotal(t, l, all, Filter{}, marked, now)
	checkTotal(t, l, all, Filter{Services: []string{"s1"}}, marked, now)
	checkTotal(t, l, all, Filter{}, now.Add(-37*time.Hour), now)
	checkUsage(t, l, all, now.Add(-47*time.Hour), now)
	// Where minute rows are deleted, hour rows count at the start of the hour.
	points, err := l.Usage(t.Context(), Query{From: begin.Truncate(24 * time.Hour), To: now, Step: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	var sum Bytes
	for _, p := range points {
		sum.Add(p.Bytes)
	}
	if want := all.total(Filter{}, begin, now); sum != want {
		t.Errorf("the points add up to %+v, want %+v", sum, want)
	}

	// Without a mark, the rows are deleted.
	minutesAt := func() (n int) {
		if err := l.DB().QueryRow(t.Context(), "SELECT COUNT(*) FROM bytes_minute WHERE at < ?", now.Add(-60*time.Hour).Unix()).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if minutesAt() == 0 {
		t.Error("the minutes around the mark are gone")
	}
	unmark()
	clock.Advance(markLife + time.Hour)
	l.flushed(t)
	if err := l.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := minutesAt(); n != 0 {
		t.Errorf("%d rows of minutes are left", n)
	}
	// Delete all rows except day rows, then the day rows.
	clock.Advance(40 * 24 * time.Hour)
	if err := l.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, unit := range units {
		var n int
		if err := l.DB().QueryRow(t.Context(), "SELECT COUNT(*) FROM "+unit.bytes).Scan(&n); err != nil || n != 0 {
			t.Errorf("%s has %d rows left, %v", unit.bytes, n, err)
		}
	}
}
