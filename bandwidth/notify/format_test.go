package notify

import (
	"math"
	"testing"
)

func TestFormats(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 kB", 7_999_999_999: "7.99 GB", 8_000_000_000: "8.00 GB", 8_200_000_000: "8.20 GB", 1_005: "1.00 kB", 10_500_000_000: "10.5 GB",
		105_000_000_000: "105 GB", 999_999: "999 kB", 9_999_999: "9.99 MB", 1_000_000: "1.00 MB", math.MaxInt64: "9.22 EB",
	} {
		if got := formatBytes(n); got != want {
			t.Errorf("%d bytes: got %q, want %q", n, got, want)
		}
	}
	for share, want := range map[float64]string{0: "0.0 %", 79.99999: "79.9 %", 80: "80.0 %", 105.55: "105.5 %", 29.0 / 100 * 100: "29.0 %"} {
		if got := formatShare(share); got != want {
			t.Errorf("%v: got %q, want %q", share, got, want)
		}
	}
}
