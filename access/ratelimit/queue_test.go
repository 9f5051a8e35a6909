package ratelimit

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// queueTest runs a test with a fake clock that starts at 0. It advances only while all
// goroutines are blocked.
func queueTest(t *testing.T, test func(t *testing.T, l *queues)) {
	synctest.Test(t, func(t *testing.T) {
		l, start := newQueues(), time.Now()
		l.now = func() time.Duration { return time.Since(start) }
		test(t, l)
	})
}

var tenPerSecond = newRate(limit{10, time.Second}, 1, 3, time.Minute)

func mustWait(t *testing.T, l *queues, key uint64, p rate) *waiter {
	t.Helper()
	w, _, ok := l.enter(key, p)
	if !ok || w == nil {
		t.Fatalf("it does not wait: %v, %v", w, ok)
	}
	return w
}

func mustGo(t *testing.T, l *queues, key uint64, p rate) {
	t.Helper()
	if w, after, ok := l.enter(key, p); !ok || w != nil {
		t.Fatalf("it does not go on at once: %v, %v, %v", w, after, ok)
	}
}

func wentAt(l *queues, w *waiter) time.Duration {
	<-w.turn
	return l.now()
}

func TestLanesKeepThePace(t *testing.T) {
	queueTest(t, func(t *testing.T, l *queues) {
		mustGo(t, l, 1, tenPerSecond)
		first, second, third := mustWait(t, l, 1, tenPerSecond), mustWait(t, l, 1, tenPerSecond), mustWait(t, l, 1, tenPerSecond)
		if _, after, ok := l.enter(1, tenPerSecond); ok || after != 100*time.Millisecond {
			t.Errorf("a fourth may wait, or come again after %v", after)
		}
		mustGo(t, l, 2, tenPerSecond)
		for i, w := range []*waiter{first, second, third} {
			if got, want := wentAt(l, w), time.Duration(i+1)*100*time.Millisecond; got != want {
				t.Errorf("waiter %d goes on at %v, want %v", i+1, got, want)
			}
		}
		time.Sleep(99 * time.Millisecond)
		if got := wentAt(l, mustWait(t, l, 1, tenPerSecond)); got != 400*time.Millisecond {
			t.Errorf("the next goes on at %v", got)
		}
		time.Sleep(100 * time.Millisecond)
		mustGo(t, l, 1, tenPerSecond)
		if l.waiting.Load() != 0 || l.delayed.Load() != 4 {
			t.Errorf("%d wait, and %d have waited", l.waiting.Load(), l.delayed.Load())
		}
	})
}

func TestLanesLetABurstGo(t *testing.T) {
	queueTest(t, func(t *testing.T, l *queues) {
		p := newRate(limit{10, time.Second}, 5, 10, time.Minute)
		for range 2 {
			for range 5 {
				mustGo(t, l, 1, p)
			}
			start := l.now()
			for i := range 3 {
				w := mustWait(t, l, 1, p)
				if got, want := wentAt(l, w)-start, time.Duration(i+1)*100*time.Millisecond; got != want {
					t.Errorf("waiter %d goes on after %v, want %v", i+1, got, want)
				}
			}
			time.Sleep(time.Hour)
		}
	})
}

// TestLeaversGiveTheirPlaceBack checks that requests move up when a request before them
// leaves.
func TestLeaversGiveTheirPlaceBack(t *testing.T) {
	for leaver, name := range []string{"first", "in between", "last"} {
		t.Run(name, func(t *testing.T) {
			queueTest(t, func(t *testing.T, l *queues) {
				mustGo(t, l, 1, tenPerSecond)
				all := []*waiter{mustWait(t, l, 1, tenPerSecond), mustWait(t, l, 1, tenPerSecond), mustWait(t, l, 1, tenPerSecond)}
				time.Sleep(50 * time.Millisecond)
				l.leave(all[leaver])
				all = append(append(all[:leaver:leaver], all[leaver+1:]...), mustWait(t, l, 1, tenPerSecond))
				for i, w := range all {
					if got, want := wentAt(l, w), time.Duration(i+1)*100*time.Millisecond; got != want {
						t.Errorf("waiter %d goes on at %v, want %v", i+1, got, want)
					}
				}
				l.leave(all[0]) // has no effect: its turn has come
				if l.waiting.Load() != 0 {
					t.Errorf("%d wait", l.waiting.Load())
				}
			})
		})
	}
}

func TestAllLeave(t *testing.T) {
	queueTest(t, func(t *testing.T, l *queues) {
		mustGo(t, l, 1, tenPerSecond)
		for range 5 {
			l.leave(mustWait(t, l, 1, tenPerSecond))
		}
		time.Sleep(100 * time.Millisecond)
		mustGo(t, l, 1, tenPerSecond)
	})
}

func TestLanesRefuseWhoWouldWaitTooLong(t *testing.T) {
	queueTest(t, func(t *testing.T, l *queues) {
		p := newRate(limit{1, time.Second}, 1, 100, 2500*time.Millisecond)
		mustGo(t, l, 1, p)
		first, second := mustWait(t, l, 1, p), mustWait(t, l, 1, p)
		if _, after, ok := l.enter(1, p); ok || after != 500*time.Millisecond {
			t.Errorf("it may wait for 3s, or come again after %v", after)
		}
		time.Sleep(500 * time.Millisecond)
		third := mustWait(t, l, 1, p)
		for i, w := range []*waiter{first, second, third} {
			if got, want := wentAt(l, w), time.Duration(i+1)*time.Second; got != want {
				t.Errorf("waiter %d goes on at %v, want %v", i+1, got, want)
			}
		}
	})
}

// TestLanesKeepOrderAndPace checks that requests stay in order, and that no time range
// has more requests than rate and burst allow.
func TestLanesKeepOrderAndPace(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		queueTest(t, func(t *testing.T, l *queues) {
			burst := 1 + random.Int64N(5)
			p := newRate(limit{1 + random.Int64N(100), time.Second}, burst, 1+random.IntN(50), time.Duration(random.IntN(2000))*time.Millisecond)
			var went []time.Duration
			var order []int
			var mu sync.Mutex
			var all sync.WaitGroup
			for i := range 300 {
				if random.IntN(3) == 0 {
					time.Sleep(time.Duration(random.Int64N(2 * int64(p.interval))))
				}
				w, _, ok := l.enter(1, p)
				if !ok {
					continue
				}
				leaves, patience := random.IntN(4) == 0, time.Duration(random.Int64N(int64(time.Second)))
				entered := l.now()
				goOn := func() {
					mu.Lock()
					defer mu.Unlock()
					went, order = append(went, l.now()), append(order, i)
					if waited := l.now() - entered; waited > p.maxWait {
						t.Errorf("one has waited %v", waited)
					}
				}
				if w == nil {
					goOn()
					continue
				}
				all.Go(func() {
					if leaves {
						select {
						case <-w.turn:
						case <-time.After(patience):
							l.leave(w)
							return
						}
					}
					<-w.turn
					goOn()
				})
			}
			all.Wait()
			for i := range order {
				if i > 0 && order[i] < order[i-1] {
					t.Errorf("%d goes on before %d", order[i-1], order[i])
				}
				if first := i - int(burst); first >= 0 && went[i]-went[first] < p.interval {
					t.Errorf("%d requests go on within %v", burst+1, went[i]-went[first])
				}
			}
			if l.waiting.Load() != 0 {
				t.Errorf("%d wait", l.waiting.Load())
			}
		})
	}
}

// TestLanesForAYear checks that the longest durations do not overflow.
func TestLanesForAYear(t *testing.T) {
	queueTest(t, func(t *testing.T, l *queues) {
		p := newRate(limit{1, maxWindow}, maxBurst, maxWaiting, maxMaxWait)
		mustGo(t, l, 1, p)
		mustGo(t, l, 1, p)
		if _, after, ok := l.enter(1, p); ok || after != maxWindow-maxMaxWait {
			t.Errorf("it may wait for a year, or come again after %v", after)
		}
		if got := p.intervals(maxWaiting); got != maxWindow {
			t.Errorf("many intervals are %v", got)
		}
	})
}

func TestLanesAreBounded(t *testing.T) {
	queueTest(t, func(t *testing.T, l *queues) {
		p := newRate(limit{1, time.Hour}, 1, 1, 2*time.Hour)
		count := func() (n int) {
			for i := range l.shards {
				n += len(l.shards[i].queues)
			}
			return n
		}
		for key := range uint64(maxQueues * 3 / 2) {
			mustGo(t, l, key, p)
		}
		if n := count(); n != maxQueues {
			t.Errorf("there are %d lanes", n)
		}
		time.Sleep(2 * time.Hour)
		for key := range uint64(maxQueues * 2) {
			mustGo(t, l, mix(key, 1), p)
			time.Sleep(time.Second)
		}
		if n := count(); n > 3*3600 {
			t.Errorf("there are %d queues, of which 3600 are worth something", n)
		}
		var waiting []*waiter
		for key := range uint64(maxWaiting) {
			w, _, ok := l.enter(key, p)
			if ok && w == nil {
				w = mustWait(t, l, key, p)
			}
			waiting = append(waiting, w)
		}
		mustGo(t, l, maxWaiting+1, p)
		if _, _, ok := l.enter(maxWaiting+1, p); ok {
			t.Errorf("%d wait", l.waiting.Load())
		}
		for _, w := range waiting {
			l.leave(w)
		}
	})
}

func TestLanesUnderLoad(t *testing.T) {
	l := newQueues()
	p := newRate(limit{1_000_000, time.Second}, 10, 50, time.Second)
	var went, refused, left atomic.Int64
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			for n := range 500 {
				w, _, ok := l.enter(uint64(n%3), p)
				switch {
				case !ok:
					refused.Add(1)
				case w == nil:
					went.Add(1)
				case (n+i)%7 == 0:
					l.leave(w)
					left.Add(1)
				default:
					<-w.turn
					went.Add(1)
				}
			}
		})
	}
	clients.Wait()
	if sum := went.Load() + refused.Load() + left.Load(); sum != 4000 || l.waiting.Load() != 0 {
		t.Errorf("%d have an end, and %d wait", sum, l.waiting.Load())
	}
}

func BenchmarkLanes(b *testing.B) {
	l := newQueues()
	p := newRate(limit{maxRequests, time.Second}, maxBurst, 1, time.Second)
	b.ReportAllocs()
	for b.Loop() {
		_, _, _ = l.enter(1, p)
	}
}
