package stats

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestStatusesCountAsSuccessErrorOrNeither(t *testing.T) {
	for _, tc := range []struct {
		status         int
		success, error uint64
		timed          bool
	}{
		{0, 1, 0, true},
		{100, 0, 0, false},
		{101, 0, 0, false},
		{103, 0, 0, false},
		{200, 1, 0, true},
		{304, 1, 0, true},
		{399, 1, 0, true},
		{400, 0, 1, true},
		{499, 0, 1, true},
		{503, 0, 1, true},
		{999, 0, 1, true},
	} {
		rec := NewRecorder("g")
		rec.Series("/", "b").Record(tc.status, 7*time.Millisecond)
		got := rec.Report(Query{})
		if want := (Requests{tc.success, tc.error}); got.Requests != want {
			t.Errorf("status %d: requests %+v, want %+v", tc.status, got.Requests, want)
		}
		if timed := got.Latency.Average == 7; timed != tc.timed {
			t.Errorf("status %d: latency %+v, want it timed: %t", tc.status, got.Latency, tc.timed)
		}
	}
}

func TestPercentilesAreWithinOnePercentOfExactOnes(t *testing.T) {
	for _, median := range []float64{50e-6, 5e-3, 2} { // in seconds
		rnd := rand.New(rand.NewPCG(1, 2))
		rec := NewRecorder("g")
		series := []*Series{rec.Series("/a", "x"), rec.Series("/b", "y")}
		exact := make([]float64, 50_000)
		var sum time.Duration
		for i := range exact {
			took := time.Duration(median * math.Exp(rnd.NormFloat64()) * 1e9)
			exact[i] = took.Seconds()
			sum += took
			series[i%2].Record(200, took)
		}
		slices.Sort(exact)

		total := newCounts()
		rec.each(func(s *Series) { total.merge(s.read(AllTime)) })
		for _, q := range []float64{.01, .5, .9, .95, .99, .999} {
			want := exact[int(math.Round(q*float64(len(exact))))-1]
			if got := total.quantile(q); math.Abs(got-want) > want*accuracy*1.0001 {
				t.Errorf("median %g: quantile %g is %g, want %g within 1 %%", median, q, got, want)
			}
		}
		want := milliseconds(sum.Seconds() / float64(len(exact)))
		if got := rec.Report(Query{}).Latency.Average; got != want {
			t.Errorf("median %g: average %g, want exactly %g", median, got, want)
		}
	}
}

func TestPercentilesOfFewAreByNearestRank(t *testing.T) {
	for n, want := range map[int][2]float64{1: {1, 1}, 2: {2, 2}, 19: {19, 19}, 20: {19, 20}, 100: {95, 99}, 101: {96, 100}} {
		one := newCounts()
		for i := range n {
			one.add(200, time.Duration(i+1)*time.Second)
		}
		for i, q := range []float64{.95, .99} {
			if got := one.quantile(q); math.Abs(got-want[i]) > want[i]*accuracy*1.0001 {
				t.Errorf("quantile %g of 1…%d s is %g, want %g within 1 %%", q, n, got, want[i])
			}
		}
	}
}

func TestDurationsOutOfRangeAreClampedInPercentilesAlone(t *testing.T) {
	a := newCounts()
	a.add(200, 0)
	a.add(200, -time.Second) // a negative duration adds nothing
	if got := a.quantile(1); math.Abs(got-1e-6) > 1e-8 {
		t.Errorf("shortest is %g s, want 1 µs", got)
	}
	if got := a.took.inSeconds(); got != 0 {
		t.Errorf("sum is %g s, want 0", got)
	}

	b := newCounts()
	b.add(200, 50*time.Hour)
	if got := b.quantile(0.5); math.Abs(got-3600) > 36 {
		t.Errorf("longest is %g s, want an hour", got)
	}
	if got := b.took.inSeconds(); got != 50*3600 {
		t.Errorf("sum is %g s, want 50 hours", got)
	}
}

func TestBinsCoverTheWholeRangeWithoutCollapsing(t *testing.T) {
	if n := indexes.Index(longest.Seconds()) - indexes.Index(shortest.Seconds()) + 1; n > maxBins {
		t.Errorf("the range takes %d bins, and there are %d", n, maxBins)
	}
}

func TestSumNeitherOverflowsNorRounds(t *testing.T) {
	const most = time.Duration(math.MaxInt64) // about 292 years
	total := newCounts()
	for range 1000 {
		one := newCounts()
		one.add(200, most)
		total.merge(one)
	}
	odd := newCounts()
	odd.add(200, time.Nanosecond)
	total.merge(odd)

	seconds, nanos := uint64(most/time.Second), uint64(most%time.Second)
	want := exactSum{seconds*1000 + nanos*1000/1e9, nanos*1000%1e9 + 1}
	if total.took != want {
		t.Errorf("sum is %+v, want %+v", total.took, want)
	}
}

func TestEncodedTallyDecodesToItself(t *testing.T) {
	a := newCounts()
	for i := range 1000 {
		a.add(200, time.Duration(i*i)*time.Microsecond)
	}
	b := newCounts()
	b.decode(a.encode(true))
	for _, q := range []float64{0, .5, .95, .99, 1} {
		if a.quantile(q) != b.quantile(q) {
			t.Errorf("quantile %g is %g, decoded %g", q, a.quantile(q), b.quantile(q))
		}
	}
	if a.sketch.TotalCount() != b.sketch.TotalCount() {
		t.Errorf("count is %g, decoded %g", a.sketch.TotalCount(), b.sketch.TotalCount())
	}
}

func TestMillisecondsHaveThreeDecimals(t *testing.T) {
	for seconds, want := range map[float64]float64{
		0: 0, 1.2345678: 1234.568, 0.0000004: 0, 0.0000016: 0.002, 1: 1000,
	} {
		if got := milliseconds(seconds); got != want {
			t.Errorf("%g s is %g ms, want %g", seconds, got, want)
		}
	}
}
