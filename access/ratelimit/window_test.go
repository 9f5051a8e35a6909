package ratelimit

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

// documented is the limit in the examples of the documentation.
var documented = limit{requests: 1000, window: time.Minute}

func TestLimitJudges(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	for _, test := range []struct {
		name    string
		limit   limit
		counter counter
		now     time.Duration
		cost    int64
		want    decision
	}{
		{"the first request", documented, counter{begin: 5 * s}, 5 * s, 1,
			decision{true, documented, 999, 60 * s}},
		{"the last one", documented, counter{current: bucket{999, 10 * s}}, 15 * s, 1,
			decision{true, documented, 0, 45 * s}},
		{"one too many waits until the first is a window ago", documented, counter{current: bucket{1000, 10 * s}}, 15 * s, 1,
			decision{false, documented, 0, 45*s + 10*ms}},
		{"a costly one waits for more", documented, counter{current: bucket{1000, 10 * s}}, 15 * s, 100,
			decision{false, documented, 0, 45*s + 1*s}},
		{"what is left is not enough", documented, counter{current: bucket{995, 10 * s}}, 15 * s, 10,
			decision{false, documented, 5, 45*s + 10*s - 10*s*990/995}},
		{"a burst is gone all at once", documented, counter{current: bucket{1000, 0}}, 15 * s, 1000,
			decision{false, documented, 0, 45 * s}},
		{"half of the window before counts", documented, counter{previous: bucket{800, 60 * s}, current: bucket{100, 30 * s}}, 30 * s, 1,
			decision{true, documented, 499, 30 * s}},
		{"a part of a request counts as one", documented, counter{previous: bucket{1, 60 * s}}, 59 * s, 999,
			decision{true, documented, 0, 1 * s}},
		{"the window before is in the way", documented, counter{previous: bucket{1000, 50 * s}}, 0, 1,
			decision{false, documented, 0, 50 * ms}},
		{"the window before has gone by", documented, counter{previous: bucket{1000, 20 * s}}, 20 * s, 1,
			decision{true, documented, 999, 40 * s}},
		{"more than the limit never passes", documented, counter{begin: 5 * s}, 5 * s, 1001,
			decision{false, documented, 1000, 60 * s}},
		{"a limit that was lowered", limit{10, 60 * s}, counter{current: bucket{1000, 10 * s}}, 15 * s, 1,
			decision{false, limit{10, 60 * s}, 0, 45*s + 10*s - 90*ms}},
		{"a clock that another request has overtaken", documented, counter{begin: 10 * s, current: bucket{1, 0}}, 9 * s, 1,
			decision{true, documented, 998, 60 * s}},
		{"the largest limit and window", limit{maxRequests, maxWindow}, counter{current: bucket{maxRequests - 1, 0}, previous: bucket{maxRequests, maxWindow}}, maxWindow, 1,
			decision{true, limit{maxRequests, maxWindow}, 0, 0}},
		{"and one too many", limit{maxRequests, maxWindow}, counter{current: bucket{maxRequests, maxWindow}, previous: bucket{maxRequests, maxWindow}}, 0, 1,
			decision{false, limit{maxRequests, maxWindow}, 0, maxWindow + maxWindow/maxRequests}},
	} {
		got := test.limit.judge(&test.counter, test.now, test.cost)
		if got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

// TestOneRequestInAWindow checks that with a limit of one, requests are admitted exactly
// one window apart.
func TestOneRequestInAWindow(t *testing.T) {
	l, one := newLimiter(minMaxKeys), limit{1, time.Minute}
	now := time.Duration(0)
	for i, step := range []time.Duration{0, 60, 60, 119, 60, 61, 90, 60, 200, 60} {
		if i > 0 && l.take(now+time.Minute-1, 1, 1, one).admitted {
			t.Errorf("request %d is admitted too early", i)
		}
		now += step*time.Second + 20*time.Nanosecond // the resolution of a one-minute window in the table
		if d := l.take(now, 1, 1, one); !d.admitted {
			t.Errorf("request %d is refused: %+v", i, d)
		}
	}
}

func TestDecisionsAreJoined(t *testing.T) {
	yes := func(remaining int64, after time.Duration) decision {
		return decision{true, documented, remaining, after}
	}
	no := func(after time.Duration) decision { return decision{after: after} }
	for _, test := range []struct{ a, b, want decision }{
		{yes(5, 10), yes(9, 20), yes(5, 10)},
		{yes(5, 10), yes(5, 20), yes(5, 20)},
		{yes(0, 10), no(1), no(1)},
		{no(10), no(20), no(20)},
	} {
		if got := test.a.and(test.b); got != test.want {
			t.Errorf("%+v and %+v: got %+v, want %+v", test.a, test.b, got, test.want)
		}
		if got := test.b.and(test.a); got != test.want {
			t.Errorf("%+v and %+v: got %+v, want %+v", test.b, test.a, got, test.want)
		}
	}
}

// naive is a reference implementation of limit. It keeps all admitted requests and
// computes with arbitrary precision.
type naive struct {
	limit
	begin time.Duration
	times []time.Duration
	costs []int64
}

// admits must be called in chronological order.
func (n *naive) admits(now time.Duration, cost int64) bool {
	begin := n.begin
	if now >= begin+2*n.window || len(n.times) == 0 {
		begin = now
	} else if now >= begin+n.window {
		begin += n.window
	}
	var current, previous, last int64
	for i, at := range n.times {
		if at >= begin {
			current += n.costs[i]
		} else if at >= begin-n.window {
			previous += n.costs[i]
			last = int64(at - (begin - n.window))
		}
	}
	left := new(big.Rat)
	if elapsed := int64(now - begin); elapsed < last {
		left.SetFrac64(last-elapsed, last)
		left.Mul(left, new(big.Rat).SetInt64(previous))
	}
	if left.Add(left, new(big.Rat).SetInt64(current+cost)); left.Cmp(new(big.Rat).SetInt64(n.requests)) > 0 {
		return false
	}
	n.begin, n.times, n.costs = begin, append(n.times, now), append(n.costs, cost)
	return true
}

// TestLimiterKeepsItsDefinition compares the limiter with naive. It checks that the limit
// is never exceeded, and that a rejected request is admitted exactly after its wait. It
// also checks that all remaining requests are admitted immediately.
func TestLimiterKeepsItsDefinition(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		l := newLimiter(minMaxKeys)
		reference := naive{limit: limit{1 + random.Int64N(50), time.Duration(1 + random.Int64N(1<<32))}}
		now := time.Duration(random.Int64N(int64(time.Hour)))
		for range 200 {
			if random.IntN(4) > 0 {
				now += time.Duration(random.Int64N(1 + int64(reference.window)/(1+random.Int64N(100))))
			}
			cost := 1 + random.Int64N(3)
			var before counter
			l.shards[0].load(&before, entryKey(7, reference.limit), now, reference.window)
			got := l.take(now, 7, cost, reference.limit)
			if want := reference.admits(now, cost); got.admitted != want {
				t.Fatalf("%v at %v, cost %d: got %v, want %v", reference.limit, now, cost, got.admitted, want)
			}
			if got.remaining < 0 || got.after < 0 {
				t.Fatalf("%v at %v: got %+v", reference.limit, now, got)
			}
			if got.admitted {
				if d := l.take(now, 7, got.remaining+1, reference.limit); d.admitted {
					t.Fatalf("%v at %v: more than what remains is admitted", reference.limit, now)
				}
				continue
			}
			if cost > reference.requests {
				continue
			}
			then := now + got.after
			if c := rolled(before, then, reference.window); !reference.judge(&c, then, cost).admitted {
				t.Fatalf("%v at %v, %+v: after the wait of %v it is refused again", reference.limit, now, before, got.after)
			}
			then--
			if c := rolled(before, then, reference.window); reference.judge(&c, then, cost).admitted {
				t.Fatalf("%v at %v, %+v: a shorter wait than %v is enough", reference.limit, now, before, got.after)
			}
		}
	}
}

func rolled(c counter, now, window time.Duration) counter {
	c.roll(now, window)
	return c
}
