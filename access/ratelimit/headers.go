package ratelimit

import (
	"net/http"
	"strconv"
	"time"
	"unsafe"
)

// The names of the RateLimit fields in canonical form
// (draft-ietf-httpapi-ratelimit-headers-03).
const (
	headerLimit     = "Ratelimit-Limit"
	headerRemaining = "Ratelimit-Remaining"
	headerReset     = "Ratelimit-Reset"
)

// rateLimitHeaders has the values of the fields in one allocation, as long as a cache line.
type rateLimitHeaders struct {
	values [3]string
	digits [16]byte // of the last two values, at the end
}

// setHeaders sets the fields for a decision, unless those of another policy admit fewer
// requests. limit is its number of requests as text.
func setHeaders(header http.Header, d *decision, limit string) {
	if before := header[headerRemaining]; d.admitted && len(before) == 1 {
		if n, err := strconv.ParseInt(before[0], 10, 64); err == nil && n < d.remaining {
			return
		}
	}
	addHeaders(header).fill(d, limit)
}

// addHeaders adds the fields to a header, to be filled later.
func addHeaders(header http.Header) *rateLimitHeaders {
	t := new(rateLimitHeaders)
	header[headerLimit] = t.values[0:1:1]
	header[headerRemaining] = t.values[1:2:2]
	header[headerReset] = t.values[2:3:3]
	return t
}

// fill sets the values for a decision. limit is its number of requests as text.
func (t *rateLimitHeaders) fill(d *decision, limit string) {
	after := seconds(d.after)
	if d.remaining >= 100_000_000 && after >= 1_000_000 { // too long for the digits
		t.values = [3]string{limit, strconv.FormatInt(d.remaining, 10), strconv.FormatInt(after, 10)}
		return
	}
	reset := t.write(len(t.digits), after)
	remaining := t.write(reset, d.remaining)
	// The digits do not change any more and can be read as a string.
	text := unsafe.String(&t.digits[remaining], len(t.digits)-remaining)
	t.values = [3]string{limit, text[:reset-remaining], text[reset-remaining:]}
}

// write writes a number of up to ten digits, two at a time, so that it ends at a position.
// It returns the position of its first digit.
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

// setRetryAfter sets when a rejected request can be repeated.
func setRetryAfter(header http.Header, after time.Duration) {
	header["Retry-After"] = []string{strconv.FormatInt(max(1, seconds(after)), 10)}
}

// seconds returns whole seconds, rounded up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
