package stats

import (
	"fmt"
	"math"
)

// MergeSketches returns the distribution of everything that the given ones are about.
// They are those of intervals or snapshots, of whatever gateway. Empty ones are
// nothing; without any other, the result is nil.
func MergeSketches(sketches ...[]byte) ([]byte, error) {
	t, err := mergeSketches(sketches)
	if err != nil {
		return nil, fmt.Errorf("merging sketches: %w", err)
	}
	if t.sketch.IsEmpty() {
		return nil, nil
	}
	return t.encode(false), nil
}

// Quantiles returns the durations in seconds, within 1 %, that these shares (0 to 1)
// of all do not exceed, such as 0.95 for the 95th percentile. They are 0 if the
// sketch is empty.
func Quantiles(sketch []byte, q ...float64) ([]float64, error) {
	t, err := mergeSketches([][]byte{sketch})
	if err != nil {
		return nil, fmt.Errorf("reading a sketch: %w", err)
	}
	values := make([]float64, len(q))
	for i, share := range q {
		if !(share >= 0 && share <= 1) {
			return nil, fmt.Errorf("the quantile %g is not a share: use one from 0 to 1", share)
		}
		values[i] = t.quantile(share)
	}
	return values, nil
}

func mergeSketches(sketches [][]byte) (*tally, error) {
	t := newTally()
	all := t.ddsketch()
	for _, b := range sketches {
		if err := all.DecodeAndMergeWith(b); err != nil {
			return nil, err
		}
	}
	if n := t.sketch.TotalCount(); math.IsNaN(n) || math.IsInf(n, 0) || n < 0 {
		return nil, fmt.Errorf("it is about %g durations: it was damaged, or is not a sketch", n)
	}
	return t, nil
}
