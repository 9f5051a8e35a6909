package stats

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestTotalsAreExactUnderParallelLoad(t *testing.T) {
	const workers, each = 16, 2000
	rec := NewRecorder("g")
	series := []*Series{rec.Series("/a", "x"), rec.Series("/b", "x"), rec.Series("/b", "y")}

	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 2 { // reads must not lose or repeat counts
		readers.Go(func() {
			for last := uint64(0); ; {
				got := rec.Report(Query{Window: LastMinute, ByRoute: true}).Requests
				if n := got.Success + got.Error; n < last {
					t.Errorf("a total went from %d to %d", last, n)
				} else {
					last = n
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for range workers {
		writers.Go(func() {
			for i := range each {
				status := 200
				if i%4 == 0 {
					status = 503
				}
				series[i%len(series)].Record(status, time.Duration(i)*time.Microsecond)
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()

	want := Requests{Success: workers * each * 3 / 4, Error: workers * each / 4}
	for _, window := range []Window{AllTime, LastMinute, LastFiveMinutes, LastHour} {
		if got := rec.Report(Query{Window: window}).Requests; got != want {
			t.Errorf("window %d: %+v, want %+v", window, got, want)
		}
	}
}

func TestWindowsForgetWhatIsOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := NewRecorder("g")
		s := rec.Series("/", "b")
		s.Record(200, 100*time.Millisecond)

		for _, tc := range []struct {
			wait                 time.Duration
			minute, five, hourly uint64
		}{
			{0, 1, 1, 1},
			{59 * time.Second, 1, 1, 1},
			{11 * time.Second, 0, 1, 1},                // 1m10s
			{3*time.Minute + 49*time.Second, 0, 1, 1},  // 4m59s
			{11 * time.Second, 0, 0, 1},                // 5m10s
			{54*time.Minute + 49*time.Second, 0, 0, 1}, // 59m59s
			{61 * time.Second, 0, 0, 0},                // 1h1m
		} {
			time.Sleep(tc.wait)
			for window, want := range map[Window]uint64{
				AllTime: 1, LastMinute: tc.minute, LastFiveMinutes: tc.five, LastHour: tc.hourly,
			} {
				got := rec.Report(Query{Window: window})
				if got.Requests.Success != want {
					t.Errorf("after %s, window %d: %d requests, want %d", rec.now(), window, got.Requests.Success, want)
				}
				if timed := got.Latency.Average == 100; timed != (want == 1) {
					t.Errorf("after %s, window %d: latency %+v", rec.now(), window, got.Latency)
				}
			}
		}
	})
}

// TestWindowsHoldWhatTheirNameSays checks that a window contains all requests within its
// length and at most one period more, independent of time and shard.
func TestWindowsHoldWhatTheirNameSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := NewRecorder("g")
		s := rec.Series("/", "b")
		rnd := rand.New(rand.NewPCG(3, 4))
		var times []time.Duration
		for range 4000 {
			time.Sleep(time.Duration(rnd.ExpFloat64() * float64(2*time.Second)))
			times = append(times, rec.now())
			s.begin(0)
			s.end(rnd.Uint32(), rec.now(), 200, time.Millisecond, Traffic{})

			if len(times)%50 != 0 {
				continue
			}
			for window, spans := range map[Window][2]time.Duration{
				LastMinute:      {time.Minute, time.Minute + tick},
				LastFiveMinutes: {5 * time.Minute, 5*time.Minute + tick},
				LastHour:        {time.Hour, time.Hour + time.Minute},
			} {
				within := func(span time.Duration) uint64 {
					i, _ := slices.BinarySearch(times, rec.now()-span)
					return uint64(len(times) - i)
				}
				got := rec.Report(Query{Window: window}).Requests.Success
				if least, most := within(spans[0]), within(spans[1]); got < least || got > most {
					t.Fatalf("window %d: %d requests, want %d to %d", window, got, least, most)
				}
			}
		}
	})
}

func TestRequestsAreInFlightUntilTheyEnd(t *testing.T) {
	rec := NewRecorder("g")
	s := rec.Series("/", "b")
	s.begin(1)
	s.begin(2)
	if n := s.inFlight(); n != 2 {
		t.Errorf("%d in flight, want 2", n)
	}
	s.end(7, rec.now(), 200, 0, Traffic{})
	s.end(9, rec.now(), 101, 0, Traffic{})
	s.Record(103, 0)
	if n := s.inFlight(); n != 0 {
		t.Errorf("%d in flight, want none", n)
	}
}

func TestSeriesBeyondTheLimitAreCountedTogether(t *testing.T) {
	rec := NewRecorder("g")
	rec.limit = 3
	for i := range 5 {
		rec.Series(fmt.Sprint("/", i), "b").Record(200, time.Millisecond)
	}
	rec.Series(Other, Other).Record(500, time.Millisecond)

	report := rec.Report(Query{ByRoute: true, ByBackend: true})
	want := map[string]Requests{"/0": {1, 0}, "/1": {1, 0}, "/2": {1, 0}, Other: {2, 1}}
	if len(report.ByRoute) != len(want) {
		t.Errorf("routes are %v", report.ByRoute)
	}
	for route, requests := range want {
		if got := report.ByRoute[route].Requests; got != requests {
			t.Errorf("route %s: %+v, want %+v", route, got, requests)
		}
	}
	if got := report.ByBackend["b"].Requests; got != (Requests{3, 0}) {
		t.Errorf("backend b: %+v", got)
	}
	if got := report.Requests; got != (Requests{5, 1}) {
		t.Errorf("totals: %+v", got)
	}
}

// TestSeriesWithoutAHolderMakeRoom checks that routes of old configurations do not use up
// the limit, and that their counts are kept.
func TestSeriesWithoutAHolderMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := NewRecorder("g")
		rec.limit = 2
		old, kept := rec.Series("/old", "b"), rec.Series("/kept", "b")
		for range 3 {
			old.Record(200, time.Millisecond)
			kept.Record(200, time.Millisecond)
			time.Sleep(90 * time.Second)
		}
		if rec.Release(old); rec.Series("/old", "b") != old {
			t.Error("a series was not found again although there was room")
		}
		rec.Release(old)

		fresh := rec.Series("/new", "b")
		if fresh.route != "/new" {
			t.Fatalf("got the series of %s", fresh.route)
		}
		// A request that began before the reload ends now.
		old.Record(503, time.Millisecond)

		all := rec.Report(Query{ByRoute: true})
		if got, want := all.Requests, (Requests{6, 1}); got != want {
			t.Errorf("totals %+v, want %+v", got, want)
		}
		if got, want := all.ByRoute[Other].Requests, (Requests{3, 1}); got != want {
			t.Errorf("other %+v, want %+v", got, want)
		}
		if _, ok := all.ByRoute["/old"]; ok {
			t.Error("the retired route is still listed")
		}
		recent := rec.Report(Query{Window: LastFiveMinutes, ByRoute: true})
		if got, want := recent.ByRoute[Other].Requests, (Requests{3, 1}); got != want {
			t.Errorf("other, lately: %+v, want %+v", got, want)
		}
		minute := rec.Report(Query{Window: LastMinute, ByRoute: true})
		if got, want := minute.ByRoute[Other].Requests, (Requests{0, 1}); got != want {
			t.Errorf("other, in the last minute: %+v, want %+v", got, want)
		}
	})
}

func TestRetiringUnderLoadLosesNothing(t *testing.T) {
	const workers, each = 8, 2000
	rec := NewRecorder("g")
	rec.limit = 1
	s := rec.Series("/old", "b")
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				s.Record(200, time.Millisecond)
			}
		})
	}
	rec.Release(s)
	rec.Series("/new", "b")
	wg.Wait()
	if got := rec.Report(Query{}).Requests.Success; got != workers*each {
		t.Errorf("%d requests, want %d", got, workers*each)
	}
}

func TestStripesAreAPowerOfTwoWithABound(t *testing.T) {
	for procs, want := range map[int]int{1: 2, 2: 4, 3: 8, 4: 8, 6: 16, 16: 32, 128: 32} {
		if got := shardsFor(procs); got != want {
			t.Errorf("%d processors: %d shards, want %d", procs, got, want)
		}
	}
}

func TestSnapshotCanBeMergedElsewhere(t *testing.T) {
	rec := NewRecorder("g")
	rec.Series("/b", "y").Record(200, 10*time.Millisecond)
	rec.Series("/a", "x").Record(101, time.Hour)
	rec.Series("/a", "x").Record(404, 30*time.Millisecond)
	rec.Series("/c", "").begin(0)

	snap := rec.Snapshot()
	if snap.Gateway != "g" || snap.Time.IsZero() || len(snap.Series) != 3 {
		t.Fatalf("snapshot is %+v", snap)
	}
	a, b, c := snap.Series[0], snap.Series[1], snap.Series[2]
	if a.Route != "/a" || a.Codes[101] != 1 || a.Codes[404] != 1 || a.LatencySumSeconds != 0.03 {
		t.Errorf("first series is %+v", a)
	}
	if c.Route != "/c" || c.Backend != "" || c.InFlight != 1 || c.Sketch != nil {
		t.Errorf("last series is %+v", c)
	}
	merged := newCounts()
	for _, s := range []SeriesSnapshot{a, b} {
		if err := merged.ddsketch().DecodeAndMergeWith(s.Sketch); err != nil {
			t.Fatal(err)
		}
	}
	if n := merged.sketch.TotalCount(); n != 2 {
		t.Errorf("the merged sketch holds %g durations, want 2", n)
	}
}
