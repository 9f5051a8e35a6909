package notify

import (
	"fmt"
	"math"
)

// formatBytes formats a number of bytes with a decimal unit and three digits. It rounds
// down, so that 99.9% of a quota is not displayed as all of it.
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

// formatShare formats a percentage, rounded down.
func formatShare(percent float64) string {
	return fmt.Sprintf("%.1f %%", math.Floor(percent*10+1e-9)/10)
}
