package stats

import (
	"math"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/store"
)

const (
	// accuracy is the maximum relative error of a percentile.
	accuracy = 0.01

	// maxBins exceeds the number of bins from shortest to longest at this accuracy, so
	// that bins never collapse.
	maxBins = 2048

	// The range of durations in percentiles. Durations outside are clamped; the average
	// is exact.
	shortest = time.Microsecond
	longest  = time.Hour
)

// indexes maps seconds to the bins of a DDSketch (Masson, Rim and Lee, VLDB 2019). It
// interpolates the logarithm by cubic polynomials, which avoids calls of math.Log.
var indexes = func() *mapping.CubicallyInterpolatedMapping {
	m, err := mapping.NewCubicallyInterpolatedMapping(accuracy)
	if err != nil {
		panic(err) // cannot fail: accuracy is a constant between 0 and 1
	}
	return m
}()

// counts holds the statistics of a time range: responses by status code, the exact sum
// and the distribution of the durations, and the bytes. It is not safe for concurrent
// use.
type counts struct {
	codes   []codeCount // in order of first use, so that common codes come first
	took    exactSum
	sketch  *store.CollapsingLowestDenseStore // durations in seconds
	traffic Traffic
}

type codeCount struct {
	code int
	n    uint64
}

func newCounts() *counts {
	return &counts{sketch: store.NewCollapsingLowestDenseStore(maxBins)}
}

// add adds one response. For a protocol switch (101), only the status code is counted,
// because the duration of the connection is not a latency.
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

// merge adds the statistics of o.
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

// reset removes all statistics but keeps the allocated memory.
func (t *counts) reset() {
	t.codes = t.codes[:0]
	t.took = exactSum{}
	t.sketch.Clear()
	t.traffic = Traffic{}
}

// requests returns the number of successes (200–399) and failures (400 and above).
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

// quantile returns a quantile in seconds by the nearest-rank method, or 0 if nothing has
// been recorded. The result is the shortest duration that at least a fraction q of the
// durations does not exceed. For example, the 95th percentile of two durations is the
// longer one.
func (t *counts) quantile(q float64) float64 {
	if t.sketch.IsEmpty() {
		return 0
	}
	const rounding = 1e-9 // e.g. 0.95 × 20 must not exceed 19
	rank := math.Ceil(q*t.sketch.TotalCount()-rounding) - 1
	return indexes.Value(t.sketch.KeyAtRank(rank))
}

// encode returns the distribution in DDSketch's encoding.
func (t *counts) encode(omitMapping bool) []byte {
	var b []byte
	t.ddsketch().Encode(&b, omitMapping)
	return b
}

// decode adds a distribution encoded with omitMapping.
func (t *counts) decode(b []byte) {
	if err := t.ddsketch().DecodeAndMergeWith(b); err != nil {
		// Cannot fail: the bytes were encoded by this process.
		panic("stats: decoding a sketch: " + err.Error())
	}
}

func (t *counts) ddsketch() *ddsketch.DDSketch {
	return ddsketch.NewDDSketch(indexes, t.sketch, store.NewSparseStore())
}

// exactSum is an exact sum of durations. A time.Duration would overflow within days on a
// gateway with many long streams.
type exactSum struct {
	seconds uint64
	nanos   uint64 // can exceed one second until the sum is added to another
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
