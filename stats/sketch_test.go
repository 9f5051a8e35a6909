package stats

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestSketchesOfIntervalsAreMerged(t *testing.T) {
	rec := NewRecorder("g")
	s := rec.Series("/", "b")
	var sketches [][]byte
	for i := range 4 {
		for n := range 250 {
			s.Record(200, time.Duration(i*250+n+1)*time.Millisecond)
		}
		rec.Drain(func(one Interval) { sketches = append(sketches, one.Sketch) })
	}
	merged, err := MergeSketches(append(sketches, nil)...)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Quantiles(merged, 0, 0.5, 0.95, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float64{0.001, 0.5, 0.95, 1} {
		if math.Abs(got[i]/want-1) > 1.001*accuracy {
			t.Errorf("quantile %d is %g s, want %g", i, got[i], want)
		}
	}
}

func TestNoSketchesAreNone(t *testing.T) {
	if merged, err := MergeSketches(nil, []byte{}); merged != nil || err != nil {
		t.Errorf("got %v, %v", merged, err)
	}
	if got, err := Quantiles(nil, 0.5, 0.99); err != nil || !slices.Equal(got, []float64{0, 0}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := Quantiles(nil, 95); err == nil {
		t.Error("95 was accepted as a quantile")
	}
}

// FuzzSketches checks arbitrary input, because sketches can be read from databases.
func FuzzSketches(f *testing.F) {
	rec := NewRecorder("g")
	s := rec.Series("/", "b")
	for i := range 100 {
		s.Record(200, time.Duration(i)*time.Millisecond)
	}
	rec.Drain(func(one Interval) {
		f.Add(one.Sketch)
		f.Add(one.Sketch[:len(one.Sketch)/2])
	})
	f.Add([]byte("not a sketch"))
	f.Fuzz(func(t *testing.T, b []byte) {
		merged, err := MergeSketches(b, b)
		if err != nil {
			return
		}
		if again, err := MergeSketches(merged); err != nil || (again == nil) != (merged == nil) {
			t.Errorf("%x was merged to %x, which is not a sketch: %v", b, merged, err)
		}
		if _, err := Quantiles(merged, 0, 0.5, 0.99, 1); err != nil {
			t.Error(err)
		}
	})
}
