package stats

import (
	"math"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/store"
)

const (
	// accuracy is the relative error of a percentile.
	accuracy = 0.01

	// maxBins is more than the range from shortest to longest needs at that accuracy, so
	// that bins never collapse.
	maxBins = 2048

	// Durations out of this range are clamped to it in percentiles, and exact in the
	// average.
	shortest = time.Microsecond
	longest  = time.Hour
)

// indexes maps seconds to the bins of a DDSketch (Masson, Rim and Lee, VLDB
// 2019), interpolating the logarithm by cubic polynomials: no call to math.Log.
var indexes = func() *mapping.CubicallyInterpolatedMapping {
	m, err := mapping.NewCubicallyInterpolatedMapping(accuracy)
	if err != nil {
		panic(err) // the accuracy is a constant between 0 and 1
	}
	return m
}()

// counts are the statistics of a span of time: responses by status, the exact sum of
// the durations, their distribution, and the bytes. It is not safe for concurrent use.
type counts struct {
	codes   []codeCount // in order of appearance, so that the usual status comes first
	took    exactSum
	sketch  *store.CollapsingLowestDenseStore // in seconds
	traffic Traffic
}

type codeCount struct {
	code int
	n    uint64
}

func newCounts() *counts {
	return &counts{sketch: store.NewCollapsingLowestDenseStore(maxBins)}
}

// add counts one response. A protocol switch (101) is counted by its code alone: the
// duration of the connection is not a latency.
func (t *counts) add(code int, took time.Duration) {
	t.count(code, 1)
	if code < 200 {
		return
	}
	t.took.nanos += uint64(max(took, 0))
	t.sketch.Add(indexes.Index(float64(min(max(took, shortest), longest)) * 1e-9))
}

func (t *counts) count(code int, n uint64) {
	for i := range t.codes {
		if t.codes[i].code == code {
			t.codes[i].n += n
			return
		}
	}
	t.codes = append(t.codes, codeCount{code, n})
}

// merge adds o.
func (t *counts) merge(o *counts) {
	for _, c := range o.codes {
		t.count(c.code, c.n)
	}
	t.took.add(o.took)
	t.sketch.MergeWith(o.sketch)
	t.traffic.add(o.traffic)
}

// isEmpty reports whether nothing was recorded.
func (t *counts) isEmpty() bool { return len(t.codes) == 0 && t.traffic == Traffic{} }

// reset removes everything, and keeps the memory.
func (t *counts) reset() {
	t.codes = t.codes[:0]
	t.took = exactSum{}
	t.sketch.Clear()
	t.traffic = Traffic{}
}

// requests returns how many responses were successes (200–399) and failures (400 and above).
func (t *counts) requests() (r Requests) {
	for _, c := range t.codes {
		switch {
		case c.code < 200:
		case c.code < 400:
			r.Success += c.n
		default:
			r.Error += c.n
		}
	}
	return r
}

// quantile returns a quantile in seconds, 0 if nothing has been recorded: the shortest
// duration that at least that share of all does not exceed (the nearest rank), so that
// the 95th percentile of two is the longer.
func (t *counts) quantile(q float64) float64 {
	if t.sketch.IsEmpty() {
		return 0
	}
	const rounding = 1e-9 // 0.95 × 20 must not exceed 19
	rank := math.Ceil(q*t.sketch.TotalCount()-rounding) - 1
	return indexes.Value(t.sketch.KeyAtRank(rank))
}

// encode returns the distribution in DDSketch's own encoding.
func (t *counts) encode(omitMapping bool) []byte {
	var b []byte
	t.ddsketch().Encode(&b, omitMapping)
	return b
}

// decode adds the distribution that encode made with its mapping omitted.
func (t *counts) decode(b []byte) {
	if err := t.ddsketch().DecodeAndMergeWith(b); err != nil {
		// The bytes were encoded by this process.
		panic("decoding an own sketch: " + err.Error())
	}
}

func (t *counts) ddsketch() *ddsketch.DDSketch {
	return ddsketch.NewDDSketch(indexes, t.sketch, store.NewSparseStore())
}

// exactSum is a sum of durations that neither overflows nor rounds: a
// time.Duration would overflow in days on a gateway with many long streams.
type exactSum struct {
	seconds uint64
	nanos   uint64 // may exceed a second until the sum is added to another
}

func (s *exactSum) add(o exactSum) {
	nanos := s.nanos + o.nanos
	s.seconds += o.seconds + nanos/uint64(time.Second)
	s.nanos = nanos % uint64(time.Second)
}

func (s exactSum) inSeconds() float64 {
	return float64(s.seconds) + float64(s.nanos)/float64(time.Second)
}

// milliseconds converts seconds to milliseconds with three decimals.
func milliseconds(seconds float64) float64 {
	return math.Round(seconds*1e6) / 1e3
}
