package bandwidth

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"time"
)

// reached reports whether used is at least a share of the limit, in percent. Neither
// is negative.
func reached(used, limit int64, percent int) bool {
	a, b := bits.Mul64(uint64(used), 100)
	c, d := bits.Mul64(uint64(limit), uint64(percent))
	return a > c || a == c && b >= d
}

// crossed returns those of the thresholds, in percent, that used has reached. They
// are in ascending order.
func crossed(used, limit int64, thresholds []int) []int {
	n := 0
	for n < len(thresholds) && reached(used, limit, thresholds[n]) {
		n++
	}
	return thresholds[:n]
}

// shareOf is how much of the limit is used, in percent.
func shareOf(used, limit int64) float64 { return float64(used) / float64(limit) * 100 }

// forecast is what comes of a period if it goes on as it began.
type forecast struct {
	AtEnd  *int64     `json:"forecast"`          // bytes at its end; null while it is too early to tell
	FullAt *time.Time `json:"full_at,omitempty"` // when the allocation is used up, if it is still to come in the period
}

// A forecast needs some of the period to go by: a hundredth of it.
const forecastAfter = 0.01

// forecastOf takes what has been used until now for a steady rate.
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

// Waiting times between attempts to deliver a message.
const (
	firstRetry = time.Second
	lastRetry  = 15 * time.Minute
)

// retryPause is how long to wait after a number of failed attempts, from 1 on: twice
// as long each time, and up to as much less that not all come at once.
func retryPause(failed int) time.Duration {
	longest := lastRetry
	if failed < 12 {
		longest = min(firstRetry<<failed, lastRetry)
	}
	return longest/2 + rand.N(longest/2)
}

// formatBytes writes a number of bytes with a decimal unit and three digits, rounded
// down: what is not reached shall not look as if it were.
func formatBytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	unit, names := int64(1), "kMGTPE"
	for n/unit >= 1000 {
		unit *= 1000
	}
	digits, tenths := 2, int64(100)
	for whole := n / unit; whole >= 10 && digits > 0; whole /= 10 {
		digits, tenths = digits-1, tenths/10
	}
	name := names[len(fmt.Sprint(unit))/3-1]
	parts := n / (unit / tenths)
	if digits == 0 {
		return fmt.Sprintf("%d %cB", parts, name)
	}
	return fmt.Sprintf("%d.%0*d %cB", parts/tenths, digits, parts%tenths, name)
}

// formatShare writes a share in percent, rounded down.
func formatShare(percent float64) string {
	return fmt.Sprintf("%.1f %%", math.Floor(percent*10+1e-9)/10)
}
