package dashboard

import (
	"strings"
	"testing"
	"time"
)

func TestNumbersAreWritten(t *testing.T) {
	for _, tc := range []struct {
		q    quantity
		v    float64
		want string
	}{
		{requestCounts, 0, "0"}, {requestCounts, 999, "999"}, {requestCounts, 12345, "12,345"}, {requestCounts, 999_999, "1 million"},
		{requestCounts, 1_234_567, "1.23 million"}, {requestCounts, 45_600_000_000, "45.6 billion"}, {requestCounts, null, "–"},
		{byteCounts, 0, "0 B"}, {byteCounts, 512, "512 B"}, {byteCounts, 999, "999 B"}, {byteCounts, 1000, "1 KB"}, {byteCounts, 999_700, "1 MB"},
		{byteCounts, 123_456, "123 KB"}, {byteCounts, 9_994, "9.99 KB"}, {byteCounts, 9_996, "10 KB"}, {byteCounts, 1.5e12, "1.5 TB"}, {byteCounts, 3e18, "3000 PB"},
		{byteRates, 1234, "1.23 KB/s"}, {byteRates, 0.4, "0.4 B/s"},
		{rates, 0, "0/s"}, {rates, 0.004, "<0.01/s"}, {rates, 12.34, "12.3/s"}, {rates, 4321, "4.32k/s"},
		{shares, 0, "0 %"}, {shares, 0.00001, "<0.01 %"}, {shares, 0.1234, "12.3 %"}, {shares, 1.29, "129 %"},
		{durations, 0.00042, "0.42 ms"}, {durations, 0.0123, "12.3 ms"}, {durations, 0.9999, "1 s"}, {durations, 1.25, "1.25 s"}, {durations, 90, "1.5 min"}, {durations, 0, "0 ms"},
	} {
		if got := strings.ReplaceAll(tc.q.text(tc.v), "\u00a0", " "); got != tc.want {
			t.Errorf("%v of kind %d: got %q, want %q", tc.v, tc.q, got, tc.want)
		}
	}
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "just now", 0: "just now", 900 * time.Millisecond: "just now", time.Second: "1 s ago", 59 * time.Second: "59 s ago",
		time.Minute: "1 min ago", 119 * time.Minute: "1 h ago", 49 * time.Hour: "2 d ago",
	} {
		if got := strings.ReplaceAll(ago(d), "\u00a0", " "); got != want {
			t.Errorf("%s: got %q, want %q", d, got, want)
		}
	}
}
