package concurrency

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

func testLimiter(max int) *limiter {
	l := newLimiter()
	l.limit(max)
	return l
}

// hasPermit reports whether a waiter has a permit.
func (w *waiter) hasPermit() bool {
	select {
	case <-w.admitted:
		return true
	default:
		return false
	}
}

func TestLimiterIsFirstComeFirstServed(t *testing.T) {
	l := testLimiter(2)
	a, _ := l.enter("", 3)
	b, _ := l.enter("", 3)
	var queue []*waiter
	for range 3 {
		place, w := l.enter("", 3)
		if place != nil || w == nil {
			t.Fatal("it does not wait")
		}
		queue = append(queue, w)
	}
	if place, w := l.enter("", 3); place != nil || w != nil {
		t.Error("a fourth one waits")
	}
	if !l.giveUp(queue[1], true) || l.giveUp(queue[1], true) {
		t.Error("giving up")
	}
	l.leave(a)
	if !queue[0].hasPermit() || queue[2].hasPermit() {
		t.Error("not the first one's turn")
	}
	if l.giveUp(queue[0], false) {
		t.Error("it gave up a place that it had")
	}
	l.leave(queue[0].queue)
	if !queue[2].hasPermit() {
		t.Error("not the last one's turn")
	}
	if got, want := l.counts(), (counts{max: 2, inFlight: 2, full: 1, timedOut: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	l.leave(b)
	l.leave(queue[2].queue)
	if got := l.counts(); got.inFlight != 0 || got.queued != 0 {
		t.Errorf("in the end: %+v", got)
	}
}

// A new request gets no permit while earlier requests wait.
func TestLimiterKeepsTheOrder(t *testing.T) {
	l := testLimiter(1)
	first, _ := l.enter("", 9)
	_, second := l.enter("", 9)
	l.leave(first)
	if !second.hasPermit() {
		t.Fatal("the second one waits in vain")
	}
	if place, third := l.enter("", 9); place != nil || third.hasPermit() {
		t.Error("the third one has a place")
	}
}

func TestLimiterOfKeys(t *testing.T) {
	l := testLimiter(1)
	var places []*queue
	for i := range 1000 {
		place, _ := l.enter(fmt.Sprint(i), 0)
		if place == nil {
			t.Fatalf("key %d has no place", i)
		}
		places = append(places, place)
		if again, w := l.enter(fmt.Sprint(i), 0); again != nil || w != nil {
			t.Fatalf("key %d has two places", i)
		}
	}
	for _, place := range places {
		l.leave(place)
	}
	if len(l.queues) != 0 || len(l.spare) > maxSpareQueues || l.counts().inFlight != 0 {
		t.Errorf("%d keys are left, %d spare", len(l.queues), len(l.spare))
	}
}

func TestLimiterChangesItsMax(t *testing.T) {
	l := newLimiter()
	letGo := l.limit(1)
	first, _ := l.enter("", 9)
	_, second := l.enter("", 9)
	letGoMore := l.limit(3)
	if second.hasPermit() {
		t.Error("the larger one of two counts")
	}
	letGo()
	if !second.hasPermit() {
		t.Error("the larger one does not count when the other is gone")
	}
	letGoMore()
	if place, _ := l.enter("", 0); place == nil || l.counts().max != 3 {
		t.Error("what is left forgets how many there may be")
	}
	l.leave(first)
}

func TestLimiterIsExact(t *testing.T) {
	const max = 3
	l := testLimiter(max)
	var inside, most, served atomic.Int64
	var clients sync.WaitGroup
	for i := range 30 {
		random := rand.New(rand.NewPCG(2, uint64(i)))
		clients.Go(func() {
			for range 2000 {
				place, w := l.enter("", 100)
				if w != nil {
					if random.IntN(4) == 0 && l.giveUp(w, false) {
						continue
					}
					<-w.admitted
					place = w.queue
				}
				n := inside.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				runtime.Gosched()
				inside.Add(-1)
				served.Add(1)
				l.leave(place)
			}
		})
	}
	clients.Wait()
	if most.Load() != max {
		t.Errorf("%d at once, want exactly %d", most.Load(), max)
	}
	if got := l.counts(); got.inFlight != 0 || got.queued != 0 {
		t.Errorf("%d were served; in the end: %+v", served.Load(), got)
	}
}

// FuzzLimiter compares the limiter with a simple model of a queue.
func FuzzLimiter(f *testing.F) {
	f.Add([]byte{1, 1, 1, 2, 1, 3, 2, 2, 2}, uint8(1), uint8(2))
	f.Add([]byte{1, 1, 1, 1, 7, 2, 11, 2, 1, 2, 2}, uint8(2), uint8(3))
	f.Fuzz(func(t *testing.T, steps []byte, max, maxQueued uint8) {
		if max == 0 {
			return
		}
		l := testLimiter(int(max))
		var inside []*queue
		var waiting []*waiter
		called := func() {
			for len(waiting) > 0 && len(inside) < int(max) {
				if !waiting[0].hasPermit() {
					t.Fatal("the first waiting request has no permit")
				}
				inside, waiting = append(inside, waiting[0].queue), waiting[1:]
			}
			if slices.ContainsFunc(waiting, (*waiter).hasPermit) {
				t.Fatal("a later request has a permit")
			}
		}
		for _, step := range steps {
			switch step % 3 {
			case 1:
				place, w := l.enter("", int(maxQueued))
				switch {
				case place != nil && w == nil && len(inside) < int(max):
					inside = append(inside, place)
				case place == nil && w != nil && len(inside) == int(max) && len(waiting) < int(maxQueued):
					waiting = append(waiting, w)
				case place != nil || w != nil || len(inside) < int(max) || len(waiting) < int(maxQueued):
					t.Fatalf("%d inside, %d waiting: got %v, %v", len(inside), len(waiting), place, w)
				}
			case 2:
				if len(inside) > 0 {
					l.leave(inside[0])
					inside = inside[1:]
				}
			default:
				if n := len(waiting); n > 0 {
					i := int(step) % n
					if !l.giveUp(waiting[i], false) {
						t.Fatal("it cannot give up")
					}
					waiting = slices.Delete(waiting, i, i+1)
				}
			}
			called()
			if got := l.counts(); got.inFlight != len(inside) || got.queued != len(waiting) {
				t.Fatalf("got %+v, want %d inside and %d waiting", got, len(inside), len(waiting))
			}
		}
	})
}

func BenchmarkLimiter(b *testing.B) {
	for _, key := range []string{"", "alice"} {
		l := testLimiter(100)
		b.Run("key="+key, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				place, _ := l.enter(key, 0)
				l.leave(place)
			}
		})
		b.Run("key="+key+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					place, _ := l.enter(key, 0)
					l.leave(place)
				}
			})
		})
	}
}
