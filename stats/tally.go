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

	// maxBins is more than the range from shortest to longest takes at that
	// accuracy, so that in truth nothing ever collapses.
	maxBins = 2048

	// What is shorter or longer counts as this in percentiles, and as what it
	// was in the average.
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

// tally is what was recorded in some span of time: how often each status was
// answered, the exact sum of the durations, their distribution, and the bytes. It is
// not safe for concurrent use.
type tally struct {
	codes   []codeCount // in order of appearance, so that the usual status comes first
	took    exactSum
	sketch  *store.CollapsingLowestDenseStore // in seconds
	traffic Traffic
}

type codeCount struct {
	code int
	n    uint64
}

func newTally() *tally {
	return &tally{sketch: store.NewCollapsingLowestDenseStore(maxBins)}
}

// add counts one answer. A protocol switch (101) is counted by its code alone:
// how long the connection lived afterwards says nothing about latency.
func (t *tally) add(code int, took time.Duration) {
	t.count(code, 1)
	if code < 200 {
		return
	}
	t.took.nanos += uint64(max(took, 0))
	t.sketch.Add(indexes.Index(float64(min(max(took, shortest), longest)) * 1e-9))
}

func (t *tally) count(code int, n uint64) {
	for i := range t.codes {
		if t.codes[i].code == code {
			t.codes[i].n += n
			return
		}
	}
	t.codes = append(t.codes, codeCount{code, n})
}

// merge adds what o has counted.
func (t *tally) merge(o *tally) {
	for _, c := range o.codes {
		t.count(c.code, c.n)
	}
	t.took.add(o.took)
	t.sketch.MergeWith(o.sketch)
	t.traffic.add(o.traffic)
}

// isEmpty tells whether nothing was recorded.
func (t *tally) isEmpty() bool { return len(t.codes) == 0 && t.traffic == Traffic{} }

// reset forgets everything, and keeps the memory for what comes.
func (t *tally) reset() {
	t.codes = t.codes[:0]
	t.took = exactSum{}
	t.sketch.Clear()
	t.traffic = Traffic{}
}

// requests tells how many answers succeeded (200–399) and failed (400 and above).
func (t *tally) requests() (r Requests) {
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

// quantile is in seconds, and 0 if nothing has been recorded. It is the shortest
// duration that at least that share of all does not exceed (the nearest rank), so
// that the 95th percentile of two is the longer.
func (t *tally) quantile(q float64) float64 {
	if t.sketch.IsEmpty() {
		return 0
	}
	const rounding = 1e-9 // 0.95 × 20 is to be 19, not a trifle more
	rank := math.Ceil(q*t.sketch.TotalCount()-rounding) - 1
	return indexes.Value(t.sketch.KeyAtRank(rank))
}

// encode returns the distribution in DDSketch's own encoding.
func (t *tally) encode(omitMapping bool) []byte {
	var b []byte
	t.ddsketch().Encode(&b, omitMapping)
	return b
}

// decode adds the distribution that encode made with its mapping omitted.
func (t *tally) decode(b []byte) {
	if err := t.ddsketch().DecodeAndMergeWith(b); err != nil {
		// The bytes never leave this process.
		panic("decoding a sketch of our own: " + err.Error())
	}
}

func (t *tally) ddsketch() *ddsketch.DDSketch {
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

// milliseconds rounds to a thousandth: what is finer is noise.
func milliseconds(seconds float64) float64 {
	return math.Round(seconds*1e6) / 1e3
}
