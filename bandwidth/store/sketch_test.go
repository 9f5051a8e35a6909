package store

import (
	"testing"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/store"

	"github.com/rgate/rgate/stats"
)

// sketchOf returns the sketch of one request.
func sketchOf(t testing.TB, took time.Duration) (sketch []byte) {
	t.Helper()
	rec := stats.NewRecorder("sketch")
	rec.Series("/", "").Record(200, took)
	rec.Drain(func(one stats.Interval) { sketch = one.Sketch })
	return sketch
}

// countOf returns the number of requests in a sketch.
func countOf(t testing.TB, sketch []byte) float64 {
	t.Helper()
	s, err := ddsketch.DecodeDDSketch(sketch, store.DefaultProvider, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s.GetCount()
}
