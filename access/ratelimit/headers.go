package ratelimit

import (
	"net/http"
	"strconv"
	"time"
	"unsafe"
)

// The fields by which a client learns how much it may send
// (draft-ietf-httpapi-ratelimit-headers-03), as Go spells them in a map.
const (
	headerLimit     = "Ratelimit-Limit"
	headerRemaining = "Ratelimit-Remaining"
	headerReset     = "Ratelimit-Reset"
)

// told is what the fields point to: one piece of memory instead of five, and as long as
// a cache line.
type told struct {
	values [3]string
	digits [16]byte // of the last two values, at the end
}

// tell writes a decision into a header, unless it is there that another policy
// admits less. limit is the limit in words.
func tell(header http.Header, d *decision, limit string) {
	if before := header[headerRemaining]; d.admitted && len(before) == 1 {
		if n, err := strconv.ParseInt(before[0], 10, 64); err == nil && n < d.remaining {
			return
		}
	}
	announce(header).fill(d, limit)
}

// announce writes the fields into a header, to be filled: what they say may not be
// known yet.
func announce(header http.Header) *told {
	t := new(told)
	header[headerLimit] = t.values[0:1:1]
	header[headerRemaining] = t.values[1:2:2]
	header[headerReset] = t.values[2:3:3]
	return t
}

// fill says what has been decided. limit is the limit in words.
func (t *told) fill(d *decision, limit string) {
	after := seconds(d.after)
	if d.remaining >= 100_000_000 && after >= 1_000_000 { // too long for the digits
		t.values = [3]string{limit, strconv.FormatInt(d.remaining, 10), strconv.FormatInt(after, 10)}
		return
	}
	reset := t.write(len(t.digits), after)
	remaining := t.write(reset, d.remaining)
	// Nobody writes to the digits any more, so that they may be read as a string.
	text := unsafe.String(&t.digits[remaining], len(t.digits)-remaining)
	t.values = [3]string{limit, text[:reset-remaining], text[reset-remaining:]}
}

// write writes a number of no more than ten digits, two at a time, so that it ends
// before a place. It returns where it begins.
func (t *told) write(end int, number int64) int {
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

// tellRetry writes when a refused request may be sent again.
func tellRetry(header http.Header, after time.Duration) {
	header["Retry-After"] = []string{strconv.FormatInt(max(1, seconds(after)), 10)}
}

// seconds are whole seconds, rounded up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
