package bandwidth

import (
	"math"
	"math/bits"
	"time"
)

// reached reports whether used is at least that many percent of limit. Neither is
// negative.
func reached(used, limit int64, percent int) bool {
	a, b := bits.Mul64(uint64(used), 100)
	c, d := bits.Mul64(uint64(limit), uint64(percent))
	return a > c || a == c && b >= d
}

// crossed returns the thresholds, in percent, that used has reached. thresholds is in
// ascending order.
func crossed(used, limit int64, thresholds []int) []int {
	n := 0
	for n < len(thresholds) && reached(used, limit, thresholds[n]) {
		n++
	}
	return thresholds[:n]
}

// shareOf returns how much of limit is used, in percent.
func shareOf(used, limit int64) float64 { return float64(used) / float64(limit) * 100 }

// forecast extrapolates the usage of a period to its end.
type forecast struct {
	AtEnd  *int64     `json:"forecast"`          // bytes at the end of the period; null at its beginning
	FullAt *time.Time `json:"full_at,omitempty"` // when the allocation will be used up, if within the period
}

// forecastAfter is the fraction of a period that must have passed before a forecast.
const forecastAfter = 0.01

// forecastOf assumes that the rest of the period has the same rate as until now.
func forecastOf(used, limit int64, start, end, now time.Time) (f forecast) {
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
