package bandwidth

import (
	"math"
	"math/bits"
	"time"

	"github.com/rgate/rgate/bandwidth/notify"
)

// reached reports whether used is at least the given percentage of limit. used and limit
// must not be negative.
func reached(used, limit int64, percent int) bool {
	a, b := bits.Mul64(uint64(used), 100)
	c, d := bits.Mul64(uint64(limit), uint64(percent))
	return a > c || a == c && b >= d
}

// crossed returns the thresholds that used has reached. thresholds are percentages in
// ascending order.
func crossed(used, limit int64, thresholds []int) []int {
	n := 0
	for n < len(thresholds) && reached(used, limit, thresholds[n]) {
		n++
	}
	return thresholds[:n]
}

// shareOf returns used as a percentage of limit.
func shareOf(used, limit int64) float64 { return float64(used) / float64(limit) * 100 }

// forecastAfter is the elapsed fraction of a period from which forecasts are made.
const forecastAfter = 0.01

// forecastOf extrapolates the average rate since the start of the period.
func forecastOf(used, limit int64, start, end, now time.Time) (f notify.Forecast) {
	elapsed := float64(now.Sub(start)) / float64(end.Sub(start))
	if elapsed < forecastAfter || elapsed > 1 {
		return f
	}
	atEnd := int64(min(float64(used)/elapsed, math.MaxInt64/2))
	f.AtEnd = &atEnd
	if used < limit && limit <= atEnd {
		full := start.Add(time.Duration(float64(now.Sub(start)) * (float64(limit) / float64(used)))).Truncate(time.Minute)
		f.FullAt = &full
	}
	return f
}
