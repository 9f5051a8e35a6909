package stats

import "fmt"

// Histogram tells for each bound how many of a sketch's durations were at most that
// long, give or take those within 1 % of it, and how many there are in all. The bounds
// are in seconds and ascend.
func Histogram(sketch []byte, bounds []float64) (atMost map[float64]uint64, all uint64, err error) {
	t, err := mergeSketches([][]byte{sketch})
	if err != nil {
		return nil, 0, fmt.Errorf("reading a sketch: %w", err)
	}
	return t.cumulative(bounds), uint64(t.sketch.TotalCount()), nil
}
