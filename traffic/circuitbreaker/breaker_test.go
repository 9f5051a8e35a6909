package circuitbreaker

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rgate/rgate/internal/monotime"
)

// fakeClock is a clock that only advance changes.
type fakeClock struct{ at atomic.Int64 }

func (c *fakeClock) now() time.Duration      { return time.Duration(c.at.Load()) }
func (c *fakeClock) advance(d time.Duration) { c.at.Add(int64(d)) }

var inARow = breakerOptions{failures: 5, expire: 5 * time.Minute, recovery: time.Minute, probes: 1}

func testBreaker(options breakerOptions) (*breaker, *fakeClock) {
	clock := new(fakeClock)
	clock.advance(time.Hour)
	return newBreaker(options, clock.now), clock
}

// send ends n requests with the outcome, as long as they are admitted, and returns their
// number.
func (b *breaker) send(n int, how outcome) (admitted int) {
	for range n {
		if pass := b.begin(); pass.admitted {
			admitted++
			b.end(pass.ticket, how)
		}
	}
	return admitted
}

func wantState(t *testing.T, b *breaker, want circuitState) {
	t.Helper()
	if got, _ := b.current(); got != want {
		t.Fatalf("it is %v, want %v", got, want)
	}
}

func TestFiveFailuresOpen(t *testing.T) {
	b, clock := testBreaker(inARow)
	if n := b.send(10, failed); n != 5 {
		t.Errorf("%d requests were let through, want 5", n)
	}
	wantState(t, b, circuitOpen)
	clock.advance(time.Minute - time.Nanosecond)
	if pass := b.begin(); pass.admitted || pass.wait != time.Nanosecond {
		t.Errorf("just before its time: %+v", pass)
	}
	clock.advance(time.Nanosecond)
	wantState(t, b, circuitHalfOpen)
	probe := b.begin()
	if !probe.admitted || probe.change != (change{circuitOpen, circuitHalfOpen}) {
		t.Fatalf("the probe: %+v", probe)
	}
	if n := b.send(10, succeeded); n != 0 {
		t.Errorf("%d requests beside the probe", n)
	}
	if got := b.end(probe.ticket, failed); got != (change{circuitHalfOpen, circuitOpen}) {
		t.Errorf("a failing probe: %+v", got)
	}
	if n := b.send(10, succeeded); n != 0 {
		t.Errorf("%d requests after a failing probe", n)
	}
	clock.advance(time.Minute)
	if n := b.send(1, succeeded); n != 1 {
		t.Error("no second probe")
	}
	wantState(t, b, circuitClosed)
	if n := b.send(4, failed) + b.send(1, succeeded) + b.send(4, failed); n != 9 {
		t.Errorf("%d of 9 requests were let through when it was closed again", n)
	}
	for state, want := range []uint64{1, 2, 2} {
		if got := b.entered[state].Load(); got != want {
			t.Errorf("%v was entered %d times, want %d", circuitState(state), got, want)
		}
	}
}

func TestASuccessEndsTheRow(t *testing.T) {
	b, _ := testBreaker(inARow)
	b.send(4, failed)
	b.send(1, succeeded)
	b.send(4, failed)
	wantState(t, b, circuitClosed)
	b.send(100, unknown) // an unknown outcome does not end the sequence of failures
	wantState(t, b, circuitClosed)
	b.send(1, failed)
	wantState(t, b, circuitOpen)
}

func TestFailuresExpire(t *testing.T) {
	b, clock := testBreaker(inARow)
	b.send(1, failed)
	clock.advance(3 * time.Minute)
	b.send(3, failed)
	clock.advance(2*time.Minute + time.Second)
	b.send(1, failed) // the first failure has expired
	wantState(t, b, circuitClosed)
	b.send(1, failed)
	wantState(t, b, circuitOpen)
}

func TestRatioOpens(t *testing.T) {
	b, clock := testBreaker(breakerOptions{ratio: .5, minimum: 10, span: 10 * time.Second, recovery: time.Minute, probes: 1})
	b.send(9, failed)
	wantState(t, b, circuitClosed) // fewer requests than minimum
	clock.advance(11 * time.Second)
	for range 5 {
		b.send(1, failed)
		b.send(1, succeeded)
		b.send(1, unknown)
	}
	wantState(t, b, circuitClosed) // the tenth request succeeded
	b.send(1, failed)
	wantState(t, b, circuitOpen)
	clock.advance(time.Minute)
	b.send(1, succeeded)
	wantState(t, b, circuitClosed)
	b.send(9, failed)
	wantState(t, b, circuitClosed) // counts are reset
}

func TestWhatMatters(t *testing.T) {
	ratio := breakerOptions{ratio: .5, minimum: 10, span: 10 * time.Second, recovery: time.Minute, probes: 1}
	for name, tc := range map[string]struct {
		options breakerOptions
		lead    func(b *breaker, clock *fakeClock)
		lasts   time.Duration
	}{
		"failures": {inARow, func(b *breaker, _ *fakeClock) { b.send(2, failed) }, 5 * time.Minute},
		"open":     {inARow, func(b *breaker, _ *fakeClock) { b.send(5, failed) }, 2 * time.Minute},
		"ratio":    {ratio, func(b *breaker, _ *fakeClock) { b.send(5, succeeded) }, 10 * time.Second},
		"half-open": {inARow, func(b *breaker, clock *fakeClock) {
			b.send(5, failed)
			clock.advance(time.Minute)
			b.begin()
		}, time.Minute},
	} {
		b, clock := testBreaker(tc.options)
		if b.hasState() {
			t.Errorf("%s: a new one matters", name)
		}
		tc.lead(b, clock)
		clock.advance(tc.lasts - time.Millisecond)
		if !b.hasState() {
			t.Errorf("%s: it matters no more within %v", name, tc.lasts)
		}
		clock.advance(2 * time.Millisecond)
		if b.hasState() {
			t.Errorf("%s: it still matters after %v", name, tc.lasts)
		}
	}
}

func TestRatioForgets(t *testing.T) {
	b, clock := testBreaker(breakerOptions{ratio: .5, minimum: 10, span: 10 * time.Second, recovery: time.Minute, probes: 1})
	for range 100 {
		b.send(9, failed)
		clock.advance(11 * time.Second)
	}
	for range 100 {
		b.send(6, succeeded)
		b.send(5, failed)
		clock.advance(time.Second)
	}
	wantState(t, b, circuitClosed)
}

func TestSeveralProbes(t *testing.T) {
	options := inARow
	options.probes = 3
	b, clock := testBreaker(options)
	b.send(5, failed)
	clock.advance(time.Minute)
	var tickets []uint64
	for range 10 {
		if pass := b.begin(); pass.admitted {
			tickets = append(tickets, pass.ticket)
		}
	}
	if len(tickets) != 3 {
		t.Fatalf("%d probes at a time, want 3", len(tickets))
	}
	b.end(tickets[0], succeeded)
	b.end(tickets[1], unknown) // releases its permit
	if n := b.send(2, succeeded); n != 1 {
		t.Errorf("%d more probes, want 1", n)
	}
	wantState(t, b, circuitHalfOpen)
	b.end(tickets[2], succeeded)
	wantState(t, b, circuitClosed)
}

func TestProbeThatNeverEndsMakesRoom(t *testing.T) {
	b, clock := testBreaker(inARow)
	b.send(5, failed)
	clock.advance(time.Minute)
	lost := b.begin()
	clock.advance(time.Minute - 1)
	if b.begin().admitted {
		t.Error("a second probe beside the first")
	}
	clock.advance(1)
	if n := b.send(1, succeeded); n != 1 {
		t.Fatal("it is stuck")
	}
	wantState(t, b, circuitClosed)
	if got := b.end(lost.ticket, failed); got.happened() {
		t.Errorf("the lost probe changed it: %+v", got)
	}
	for range 4 {
		b.send(1, failed)
	}
	wantState(t, b, circuitClosed)
}

func TestRequestsOfAnEarlierPhaseDoNotMatter(t *testing.T) {
	b, clock := testBreaker(inARow)
	slow := b.begin()
	b.send(5, failed)
	clock.advance(time.Minute)
	b.end(slow.ticket, succeeded)
	wantState(t, b, circuitHalfOpen)
	probe := b.begin()
	b.end(slow.ticket, failed)
	b.end(slow.ticket, succeeded)
	wantState(t, b, circuitHalfOpen)
	b.end(probe.ticket, succeeded)
	wantState(t, b, circuitClosed)
}

// The number of probes in flight never exceeds the limit. The breaker closes when
// failures end.
func TestProbesAreNeverTooMany(t *testing.T) {
	options := inARow
	options.probes, options.failures = 2, 3
	b, clock := testBreaker(options)
	var probing sync.Map // *atomic.Int64 by ticket, which identifies a phase
	var most atomic.Int64
	var clients sync.WaitGroup
	for i := range 8 {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		clients.Go(func() {
			for range 20_000 {
				pass := b.begin()
				if !pass.admitted {
					clock.advance(time.Second)
					continue
				}
				how := outcome(random.IntN(3))
				if stateIn(pass.ticket) == circuitHalfOpen {
					n, _ := probing.LoadOrStore(pass.ticket, new(atomic.Int64))
					most.Store(max(most.Load(), n.(*atomic.Int64).Add(1)))
					n.(*atomic.Int64).Add(-1)
				}
				b.end(pass.ticket, how)
			}
		})
	}
	clients.Wait()
	if most.Load() > 2 {
		t.Errorf("%d probes at a time, want 2 at most", most.Load())
	}
	clock.advance(time.Minute)
	b.send(100, succeeded)
	wantState(t, b, circuitClosed)
}

func BenchmarkBreaker(b *testing.B) {
	for name, options := range map[string]breakerOptions{
		"in-a-row": inARow,
		"ratio":    {ratio: .5, minimum: 20, span: 10 * time.Second, recovery: time.Minute, probes: 1},
	} {
		br := newBreaker(options, monotime.Now)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				br.end(br.begin().ticket, succeeded)
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					br.end(br.begin().ticket, succeeded)
				}
			})
		})
	}
}
