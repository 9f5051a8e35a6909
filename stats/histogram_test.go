package stats

import (
	"testing"
	"time"
)

func TestHistogramOfASketch(t *testing.T) {
	rec := NewRecorder("g")
	s := rec.Series("/a", "x")
	for _, took := range []time.Duration{3 * time.Millisecond, 3 * time.Millisecond, 2 * time.Second} {
		s.Record(200, took)
	}
	got, all, err := Histogram(rec.Snapshot().Series[0].Sketch, []float64{.001, .005, 1, 5})
	if err != nil || all != 3 || got[.001] != 0 || got[.005] != 2 || got[1] != 2 || got[5] != 3 {
		t.Errorf("got %v of %d, %v", got, all, err)
	}
	if got, all, err := Histogram(nil, []float64{1}); err != nil || all != 0 || got[1] != 0 {
		t.Errorf("of nothing: %v of %d, %v", got, all, err)
	}
	if _, _, err := Histogram([]byte("no sketch"), []float64{1}); err == nil {
		t.Error("no error for an invalid sketch")
	}
}
