package access

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

// told is what the fields point to: one piece of memory instead of five.
type told struct {
	values [3]string
	digits [24]byte // of the last two values, which have at most 10 and 8, at the end
}

// tell writes a decision into a header, unless it is there that another policy
// admits less. limit is the limit in words.
func tell(header http.Header, d *decision, limit string) {
	if before := header[headerRemaining]; d.admitted && len(before) == 1 {
		if n, err := strconv.ParseInt(before[0], 10, 64); err == nil && n < d.remaining {
			return
		}
	}
	t := new(told)
	reset := t.write(len(t.digits), seconds(d.after))
	remaining := t.write(reset, d.remaining)
	// Nobody writes to the digits any more, so that they may be read as a string.
	text := unsafe.String(&t.digits[remaining], len(t.digits)-remaining)
	t.values = [3]string{limit, text[:reset-remaining], text[reset-remaining:]}
	header[headerLimit] = t.values[0:1:1]
	header[headerRemaining] = t.values[1:2:2]
	header[headerReset] = t.values[2:3:3]
}

// write writes a number, which is not negative, so that it ends before a place. It
// returns where it begins.
func (t *told) write(end int, n int64) int {
	for {
		end--
		t.digits[end] = '0' + byte(n%10)
		if n /= 10; n == 0 {
			return end
		}
	}
}

// tellRetry writes when a refused request may be sent again.
func tellRetry(header http.Header, after time.Duration) {
	header["Retry-After"] = []string{strconv.FormatInt(max(1, seconds(after)), 10)}
}

// seconds are whole seconds, rounded up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
