package bandwidth

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth/notify"
)

// Only a used-up allocation is at 100%.
func TestShareOf(t *testing.T) {
	if share := shareOf(9_999_999_999, 10_000_000_000); share >= 100 || share < 99.9999 {
		t.Errorf("the share is %v %%", share)
	}
}

func TestCrossed(t *testing.T) {
	all := []int{80, 90, 100}
	for _, c := range []struct {
		used, limit int64
		want        int // number of reached thresholds
	}{
		{0, 1000, 0}, {799, 1000, 0}, {800, 1000, 1}, {899, 1000, 1}, {900, 1000, 2}, {999, 1000, 2}, {1000, 1000, 3}, {1050, 1000, 3},
		// A threshold that is not a whole number of bytes is reached at the next byte.
		{5, 7, 0}, {6, 7, 1}, {7, 7, 3},
		// 79.99999999% of 10 GB.
		{7_999_999_999, 10_000_000_000, 0}, {8_000_000_000, 10_000_000_000, 1},
		{math.MaxInt64, math.MaxInt64, 3}, {math.MaxInt64 / 2, math.MaxInt64, 0}, {math.MaxInt64, 1, 3}, {0, math.MaxInt64, 0},
	} {
		if got := crossed(c.used, c.limit, all); !slices.Equal(got, all[:c.want]) {
			t.Errorf("%d of %d: got %v, want %v", c.used, c.limit, got, all[:c.want])
		}
	}
}

func TestForecast(t *testing.T) {
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	end := start.AddDate(0, 1, 0) // 30 days
	at := func(days float64) time.Time { return start.Add(time.Duration(days * 24 * float64(time.Hour))) }
	for _, c := range []struct {
		what         string
		used         int64
		days         float64
		want, fullAt float64 // want in bytes; fullAt in days, or 0 for none
	}{
		{"half of the time", 500, 15, 1000, 30},
		{"more than will last", 800, 15, 1600, 18.75},
		{"less", 100, 15, 200, 0},
		{"nothing", 0, 15, 0, 0},
		{"all of it", 1000, 15, 2000, 0},
		{"the end", 400, 30, 400, 0},
	} {
		f := forecastOf(c.used, 1000, start, end, at(c.days))
		if f.AtEnd == nil || float64(*f.AtEnd) != c.want {
			t.Errorf("%s: got %+v, want %v", c.what, f, c.want)
		}
		if (f.FullAt != nil) != (c.fullAt > 0) || f.FullAt != nil && !f.FullAt.Equal(at(c.fullAt)) {
			t.Errorf("%s: it is used up at %v, want after %v days", c.what, f.FullAt, c.fullAt)
		}
	}
	for _, days := range []float64{-1, 0, 0.1, 31} {
		if f := forecastOf(10, 1000, start, end, at(days)); f != (notify.Forecast{}) {
			t.Errorf("after %v days: got %+v", days, f)
		}
	}
	if f := forecastOf(math.MaxInt64, 1, start, end, at(1)); f.AtEnd == nil || *f.AtEnd < 0 {
		t.Errorf("very much: got %+v", f)
	}
}
