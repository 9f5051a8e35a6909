package stats

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// drained sums up intervals by route, backend and consumer.
type drained map[[3]string]Interval

func (d drained) from(rec *Recorder) {
	rec.Drain(func(one Interval) {
		key := [3]string{one.Route, one.Backend, one.Consumer}
		sum := d[key]
		sum.Traffic.add(one.Traffic)
		sum.Requests += one.Requests
		sum.Errors += one.Errors
		sum.Seconds += one.Seconds
		merged, err := MergeSketches(sum.Sketch, one.Sketch)
		if err != nil {
			panic(err)
		}
		sum.Sketch = merged
		d[key] = sum
	})
}

// total returns the sum of the intervals without a consumer or, with ofConsumers, of the
// intervals with a consumer.
func (d drained) total(ofConsumers bool) (sum Interval) {
	for key, one := range d {
		if (key[2] != "") == ofConsumers {
			sum.Traffic.add(one.Traffic)
			sum.Requests += one.Requests
			sum.Errors += one.Errors
		}
	}
	return sum
}

func TestDrainReturnsWhatIsNew(t *testing.T) {
	rec := NewRecorder("g")
	s := rec.Series("/a", "x")
	s.Record(200, 100*time.Millisecond)
	s.Record(404, 300*time.Millisecond)
	s.Record(101, time.Hour)
	s.shard(3).flow(Traffic{1, 2, 3, 4})
	rec.Series(DefaultRoute, "").Record(403, 0)
	rec.Series("/idle", "x")

	first := drained{}
	first.from(rec)
	if names := slices.Collect(maps.Keys(first)); len(names) != 2 {
		t.Errorf("drained %v", names)
	}
	got := first[[3]string{"/a", "x", ""}]
	if got.Traffic != (Traffic{1, 2, 3, 4}) || got.Requests != 2 || got.Errors != 1 || math.Abs(got.Seconds-0.4) > 1e-9 {
		t.Errorf("drained %+v", got)
	}
	q, err := Quantiles(got.Sketch, 0, 1)
	if err != nil || math.Abs(q[0]-0.1) > 0.001 || math.Abs(q[1]-0.3) > 0.003 {
		t.Errorf("quantiles are %v, %v", q, err)
	}
	if none := first[[3]string{DefaultRoute, NoBackend, ""}]; none.Requests != 1 || none.Errors != 1 {
		t.Errorf("drained %+v of requests to nowhere", none)
	}

	rec.Drain(func(one Interval) { t.Errorf("drained again: %+v", one) })
	s.shard(2).flow(Traffic{IngressBody: 7})
	second := drained{}
	second.from(rec)
	want := Interval{Traffic: Traffic{IngressBody: 7}}
	if got := second[[3]string{"/a", "x", ""}]; len(second) != 1 || got.Traffic != want.Traffic || got.Requests != 0 || got.Sketch != nil {
		t.Errorf("drained %+v", second)
	}
	if total := rec.Snapshot().Series[0]; total.Traffic != (Traffic{8, 2, 3, 4}) {
		t.Errorf("draining has changed the total to %+v", total.Traffic)
	}
}

// TestDrainingUnderLoadIsExact checks that drains return every byte and request exactly
// once. In the meantime, requests run, series are retired, and consumers change.
func TestDrainingUnderLoadIsExact(t *testing.T) {
	const workers, each = 8, 3000
	rec := NewRecorder("g")
	rec.limit, rec.consumers.limit = 3, 5
	rec.consumers.wanted.Store(true)
	got := drained{}

	stop := make(chan struct{})
	var load, others sync.WaitGroup
	others.Go(func() { // drains concurrently
		for {
			got.from(rec)
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	others.Go(func() { // simulates reloads with new routes
		for i := 0; ; i++ {
			rec.Release(rec.Series(fmt.Sprint("/new/", i), "b"))
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for worker := range workers {
		load.Go(func() {
			s := rec.Series(fmt.Sprint("/", worker%2), "b")
			for i := range each {
				if i == each/2 {
					rec.Release(s) // but still use it, like requests of the old configuration
				}
				shardID := uint32(worker)
				f := flow{shard: s.shard(shardID), account: s.account(fmt.Sprint(i % 7))}
				s.begin(shardID)
				f.add(Traffic{IngressBody: 2, EgressBody: 3})
				s.end(shardID, rec.now(), 200+i%2*300, time.Millisecond, Traffic{IngressHeader: 5, EgressHeader: 7})
				f.add(Traffic{IngressBody: 11}) // like a body read after the handler has returned
			}
		})
	}
	load.Wait()
	close(stop)
	others.Wait()
	got.from(rec)

	const n = workers * each
	whole, parts := got.total(false), got.total(true)
	if want := (Traffic{13 * n, 3 * n, 5 * n, 7 * n}); whole.Traffic != want || whole.Requests != n || whole.Errors != n/2 {
		t.Errorf("drained %+v, want %+v and %d requests", whole, want, n)
	}
	if want := (Traffic{13 * n, 3 * n, 0, 0}); parts.Traffic != want {
		t.Errorf("consumers have %+v, want %+v", parts.Traffic, want)
	}
	var total Traffic
	for _, one := range rec.Snapshot().Series {
		total.add(one.Traffic)
	}
	if total != whole.Traffic {
		t.Errorf("the total is %+v, but %+v was drained", total, whole.Traffic)
	}
}

func TestConsumersBeyondTheLimitAreCountedTogether(t *testing.T) {
	rec := NewRecorder("g")
	rec.consumers.limit = 2
	s := rec.Series("/", "b")
	for _, name := range []string{"a", "b", "c", "d", "a"} {
		s.account(name).add(Traffic{EgressBody: 1})
	}
	rec.Series("/2", "b").account("b").add(Traffic{EgressBody: 1})
	got := drained{}
	got.from(rec)
	for key, want := range map[[3]string]uint64{
		{"/", "b", "a"}: 2, {"/", "b", "b"}: 1, {"/", "b", Other}: 2, {"/2", "b", "b"}: 1,
	} {
		if n := got[key].Traffic.EgressBody; n != want {
			t.Errorf("%v has %d, want %d", key, n, want)
		}
	}
}

func TestIdleConsumersAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := NewRecorder("g")
		rec.consumers.limit = 1
		s := rec.Series("/", "b")
		held := s.account("a")
		held.add(Traffic{EgressBody: 1})
		got := drained{}
		got.from(rec)
		time.Sleep(idleAccounts + time.Second)
		got.from(rec)
		if n := len(rec.consumers.open); n != 0 {
			t.Fatalf("%d consumers are known, want none", n)
		}
		held.add(Traffic{EgressBody: 2}) // like a connection that was idle for as long
		s.account("b").add(Traffic{EgressBody: 4})
		got.from(rec)
		if a, other := got[[3]string{"/", "b", "a"}], got[[3]string{"/", "b", Other}]; a.Traffic.EgressBody != 3 || other.Traffic.EgressBody != 4 {
			t.Errorf("drained %+v", got)
		}
	})
}

func TestARetiredSeriesHandsOverWhatWasNotDrained(t *testing.T) {
	for _, before := range []bool{false, true} {
		t.Run(fmt.Sprintf("drained before: %t", before), func(t *testing.T) {
			rec := NewRecorder("g")
			rec.limit = 1
			s := rec.Series("/old", "b")
			flows := flow{s.shard(0), s.account("a")}
			flows.add(Traffic{EgressBody: 1})
			s.Record(200, time.Millisecond)
			got := drained{}
			if before {
				got.from(rec)
			}
			flows.add(Traffic{EgressBody: 2})
			s.Record(500, time.Millisecond)
			rec.Release(s)
			rec.Series("/new", "b")
			flows.add(Traffic{EgressBody: 4})
			got.from(rec)
			rec.Drain(func(one Interval) { t.Errorf("drained twice: %+v", one) })
			whole, parts := got.total(false), got.total(true)
			if whole.Traffic.EgressBody != 7 || whole.Requests != 2 || whole.Errors != 1 || parts.Traffic.EgressBody != 7 {
				t.Errorf("drained %+v, of consumers %+v", whole, parts)
			}
		})
	}
}

func TestRecorderIsHeldUntilItIsReleased(t *testing.T) {
	rec, release, err := HoldRecorder("held")
	if err != nil {
		t.Fatal(err)
	}
	again, releaseAgain, err := HoldRecorder("held")
	if err != nil || again != rec {
		t.Fatalf("got another recorder, %v", err)
	}
	for range 2 { // a second close has no effect
		if err := release(); err != nil {
			t.Error(err)
		}
	}
	if n, exists := recorders.References("held"); n != 1 || !exists {
		t.Errorf("%d hold it", n)
	}
	if err := releaseAgain(); err != nil {
		t.Error(err)
	}
	if _, exists := recorders.References("held"); exists {
		t.Error("it is still there")
	}
}
