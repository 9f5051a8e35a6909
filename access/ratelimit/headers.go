package ratelimit

import (
	"net/http"
	"strconv"
	"time"
	"unsafe"
)

// Canonical names of the RateLimit header fields
// (draft-ietf-httpapi-ratelimit-headers-03).
const (
	headerLimit     = "Ratelimit-Limit"
	headerRemaining = "Ratelimit-Remaining"
	headerReset     = "Ratelimit-Reset"
)

// rateLimitHeaders holds the values of the header fields in one allocation with the size
// of a cache line.
type rateLimitHeaders struct {
	values [3]string
	digits [16]byte // buffer of the last two values, right-aligned
}

// setHeaders sets the header fields for a decision. It keeps the fields of another policy
// that has fewer remaining requests. limit is the formatted number of requests.
func setHeaders(header http.Header, d *decision, limit string) {
	if before := header[headerRemaining]; d.admitted && len(before) == 1 {
		if n, err := strconv.ParseInt(before[0], 10, 64); err == nil && n < d.remaining {
			return
		}
	}
	t := new(rateLimitHeaders)
	t.fill(d, limit)
	header[headerLimit], header[headerRemaining], header[headerReset] = t.values[0:1:1], t.values[1:2:2], t.values[2:3:3]
}

// fill sets the values for a decision. limit is the formatted number of requests.
func (t *rateLimitHeaders) fill(d *decision, limit string) {
	after := seconds(d.after)
	if d.remaining >= 100_000_000 && after >= 1_000_000 { // may exceed the buffer
		t.values = [3]string{limit, strconv.FormatInt(d.remaining, 10), strconv.FormatInt(after, 10)}
		return
	}
	reset := t.write(len(t.digits), after)
	remaining := t.write(reset, d.remaining)
	// digits is no longer modified, so it can be shared as a string.
	text := unsafe.String(&t.digits[remaining], len(t.digits)-remaining)
	t.values = [3]string{limit, text[:reset-remaining], text[reset-remaining:]}
}

// write formats a number of up to ten digits, two at a time, so that it ends at index
// end. It returns the index of the first digit.
func (t *rateLimitHeaders) write(end int, number int64) int {
	n := uint32(number)
	for n >= 100 {
		end -= 2
		copy(t.digits[end:], pairs[n%100*2:][:2])
		n /= 100
	}
	if n >= 10 {
		end -= 2
		copy(t.digits[end:], pairs[n*2:][:2])
		return end
	}
	end--
	t.digits[end] = '0' + byte(n)
	return end
}

const pairs = "00010203040506070809" +
	"10111213141516171819" +
	"20212223242526272829" +
	"30313233343536373839" +
	"40414243444546474849" +
	"50515253545556575859" +
	"60616263646566676869" +
	"70717273747576777879" +
	"80818283848586878889" +
	"90919293949596979899"

// setRetryAfter sets Retry-After to the time until a rejected request can be retried.
func setRetryAfter(header http.Header, after time.Duration) {
	header["Retry-After"] = []string{strconv.FormatInt(max(1, seconds(after)), 10)}
}

// seconds returns a duration in seconds, rounded up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
