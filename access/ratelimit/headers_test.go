package ratelimit

import (
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"testing"
	"time"
	"unsafe"
)

// TestFieldsHaveNumbers checks that values are decimal numbers, and that appending to one
// field does not overwrite another.
func TestFieldsHaveNumbers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	numbers := []int64{0, 1, 9, 10, 99, 100, 101, 999, 1000, 9_999_999, 10_000_000, 31_622_400, 99_999_999, 100_000_000, 999_999_999, 1_000_000_000}
	for range 1000 {
		numbers = append(numbers, random.Int64N(int64(math.Pow10(random.IntN(10)))))
	}
	for i, remaining := range numbers {
		reset := min(numbers[len(numbers)-1-i], int64(maxWindow/time.Second))
		if i < 256 { // all pairs of the first 16 numbers
			remaining, reset = numbers[i%16], min(numbers[i/16], int64(maxWindow/time.Second))
		}
		header := make(http.Header)
		setHeaders(header, &decision{admitted: true, remaining: remaining, after: time.Duration(reset) * time.Second}, "5")
		got := [3]string{header.Get(headerLimit), header.Get(headerRemaining), header.Get(headerReset)}
		if want := [3]string{"5", strconv.FormatInt(remaining, 10), strconv.FormatInt(reset, 10)}; got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		for name, values := range header {
			if cap(values) != 1 {
				t.Fatalf("%s has room for %d values", name, cap(values))
			}
		}
	}
}

// TestSizesAreThoseOfCacheLines checks that the header fields, a shard, and two entries
// each have the size of a cache line.
func TestSizesAreThoseOfCacheLines(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("not on 64 bits")
	}
	if rateLimitHeaders, shard, entry := unsafe.Sizeof(rateLimitHeaders{}), unsafe.Sizeof(shard{}), unsafe.Sizeof(entry{}); rateLimitHeaders != 64 || shard != 64 || entry != 32 {
		t.Errorf("got %d, %d and %d", rateLimitHeaders, shard, entry)
	}
}
