package stats

import "fmt"

// Histogram returns, for each bound, the number of durations in a sketch up to the bound
// (within 1%), and the number of all durations. Bounds are in seconds, in ascending
// order.
func Histogram(sketch []byte, bounds []float64) (atMost map[float64]uint64, all uint64, err error) {
	t, err := mergeSketches([][]byte{sketch})
	if err != nil {
		return nil, 0, fmt.Errorf("reading a sketch: %w", err)
	}
	return t.cumulative(bounds), uint64(t.sketch.TotalCount()), nil
}
