package stats

import (
	"fmt"
	"math"
)

// MergeSketches returns the merged distribution of sketches from intervals or snapshots,
// also of different gateways. Empty sketches are ignored. If all are empty, the result is
// nil.
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

// Quantiles returns quantiles (0 to 1) of the durations in seconds, within 1%. For
// example, 0.95 is the 95th percentile. All are 0 if the sketch is empty.
func Quantiles(sketch []byte, q ...float64) ([]float64, error) {
	t, err := mergeSketches([][]byte{sketch})
	if err != nil {
		return nil, fmt.Errorf("reading a sketch: %w", err)
	}
	values := make([]float64, len(q))
	for i, share := range q {
		if !(share >= 0 && share <= 1) {
			return nil, fmt.Errorf("invalid quantile %g: must be from 0 to 1", share)
		}
		values[i] = t.quantile(share)
	}
	return values, nil
}

func mergeSketches(sketches [][]byte) (*counts, error) {
	t := newCounts()
	all := t.ddsketch()
	for _, b := range sketches {
		if err := all.DecodeAndMergeWith(b); err != nil {
			return nil, err
		}
	}
	if n := t.sketch.TotalCount(); math.IsNaN(n) || math.IsInf(n, 0) || n < 0 {
		return nil, fmt.Errorf("invalid count of %g durations: the sketch is damaged", n)
	}
	return t, nil
}
