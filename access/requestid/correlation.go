package requestid

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"time"
)

// newRequestID returns a version 7 UUID (RFC 9562, section 5.7). It contains the time in
// milliseconds, 62 random bits, and the fraction of the millisecond in 12 bits. The IDs
// of one gateway sort by time.
func newRequestID(now time.Time) string {
	nanoseconds := uint64(now.UnixNano())
	milliseconds := nanoseconds / 1e6
	fraction := nanoseconds % 1e6 << 12 / 1e6

	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], milliseconds<<16|7<<12|fraction)
	binary.BigEndian.PutUint64(id[8:], 0b10<<62|rand.Uint64()>>2)

	var text [36]byte
	hex.Encode(text[0:8], id[0:4])
	hex.Encode(text[9:13], id[4:6])
	hex.Encode(text[14:18], id[6:8])
	hex.Encode(text[19:23], id[8:10])
	hex.Encode(text[24:36], id[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}

const maxRequestID = 128

// validRequestID reports whether a client's ID is safe to forward and log. It has at most
// 128 letters, digits and punctuation characters without a meaning in headers, logs and
// shells.
func validRequestID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9':
		case strings.IndexByte("-_.:+/=@", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// traceID returns the trace ID in a traceparent value, or an empty string if the value is
// invalid (https://www.w3.org/TR/trace-context/#traceparent-header).
func traceID(traceparent string) string {
	const length = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	switch {
	case len(traceparent) < length:
		return ""
	case len(traceparent) > length && (traceparent[:2] == "00" || traceparent[length] != '-'):
		return ""
	}
	version, trace := traceparent[0:2], traceparent[3:35]
	parent, flags := traceparent[36:52], traceparent[53:55]
	if traceparent[2] != '-' || traceparent[35] != '-' || traceparent[52] != '-' ||
		!isHex(version) || !isHex(trace) || !isHex(parent) || !isHex(flags) ||
		version == "ff" || isZero(trace) || isZero(parent) {
		return ""
	}
	return trace
}

// isHex reports whether s consists of lower-case hexadecimal digits.
func isHex(s string) bool {
	for _, c := range []byte(s) {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}

func isZero(s string) bool { return strings.Trim(s, "0") == "" }
