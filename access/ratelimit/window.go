package ratelimit

import (
	"math"
	"math/bits"
	"time"
)

// The maximum values of requests and window. Counts must fit into 32 bits, and twice the
// window into a time.Duration.
const (
	maxRequests = 1_000_000_000
	maxWindow   = 366 * 24 * time.Hour
)

// limit is a maximum number of requests within any period of the window's length. A
// request counts by its cost.
//
// Requests are counted by a sliding window counter (Desgats, "How we built rate limiting
// capable of scaling to millions of domains", Cloudflare, 2017). The used part is the
// count of the current window plus a share of the previous window's count. The share
// assumes that requests were evenly distributed.
//
// Two changes improve the accuracy. The window of a key begins with its first request.
// The even distribution ends at the last request of a window instead of the window's end.
// Therefore, one window after a burst, the whole limit is available again.
type limit struct {
	requests int64
	window   time.Duration
}

// counter holds the counts of a key under one limit.
type counter struct {
	begin             time.Duration // start of the current window
	current, previous bucket
}

// bucket counts the requests of a window.
type bucket struct {
	count uint32        // total cost
	last  time.Duration // time of the last request since the start of the window
}

// roll advances the counter to the given time.
func (c *counter) roll(now, window time.Duration) {
	age := now - c.begin
	if age < window { // also if a concurrent request has advanced it past now
		return
	}
	if age < 2*window {
		c.begin, c.previous, c.current = c.begin+window, c.current, bucket{}
		return
	}
	*c = counter{begin: now}
}

// add adds the cost of a request to the current window.
func (c *counter) add(now time.Duration, cost int64) {
	c.current.count = uint32(min(int64(c.current.count)+cost, math.MaxUint32))
	c.current.last = max(c.current.last, c.elapsed(now))
}

// elapsed returns the age of the current window.
func (c *counter) elapsed(now time.Duration) time.Duration { return max(0, now-c.begin) }

// used returns the used part of the limit, rounded up.
func (c *counter) used(now time.Duration) int64 {
	return int64(c.current.count) + c.previous.left(c.elapsed(now))
}

// left returns the number of requests in the bucket that are still within a window's
// length, rounded up, once the following window has lasted for elapsed.
func (b *bucket) left(elapsed time.Duration) int64 {
	if b.count == 0 || elapsed >= b.last {
		return 0
	}
	// count × (last − elapsed) ÷ last, in 128 bits.
	hi, lo := bits.Mul64(uint64(b.count), uint64(b.last-elapsed))
	quotient, remainder := bits.Div64(hi, lo, uint64(b.last))
	if remainder > 0 {
		quotient++
	}
	return int64(quotient)
}

// gone returns how long the following window must last until at most left requests
// remain.
func (b *bucket) gone(left int64) time.Duration {
	if left >= int64(b.count) {
		return 0
	}
	hi, lo := bits.Mul64(uint64(left), uint64(b.last))
	quotient, _ := bits.Div64(hi, lo, uint64(b.count))
	return b.last - time.Duration(quotient)
}

// wait returns how long a rejected request must wait if no other request arrives. It
// returns the whole window for a request whose cost exceeds the limit, which is never
// admitted.
func (l limit) wait(c *counter, now time.Duration, cost int64) time.Duration {
	room := l.requests - cost
	if room < 0 {
		return l.window
	}
	if current := int64(c.current.count); current <= room { // the previous window causes the rejection
		return c.previous.gone(room-current) - c.elapsed(now)
	}
	return l.window - c.elapsed(now) + c.current.gone(room)
}

// decision is the result of counting a request.
type decision struct {
	admitted bool

	// The limit that is closest to exhaustion or, if the request is rejected, the limit
	// with the longest wait.
	limit     limit
	remaining int64 // after this request if it is admitted

	// The time until the current window ends or, if the request is rejected, until it
	// would be admitted.
	after time.Duration
}

// judge checks a request against one limit.
func (l limit) judge(c *counter, now time.Duration, cost int64) decision {
	left := l.requests - c.used(now)
	if cost > left {
		return decision{limit: l, remaining: max(0, left), after: l.wait(c, now, cost)}
	}
	return decision{admitted: true, limit: l, remaining: left - cost, after: l.window - c.elapsed(now)}
}

// and combines two decisions. A request is admitted only if all limits admit it.
func (d decision) and(other decision) decision {
	switch {
	case d.admitted != other.admitted:
		if d.admitted {
			return other
		}
		return d
	case d.admitted && other.remaining < d.remaining,
		(!d.admitted || other.remaining == d.remaining) && other.after > d.after:
		return other
	}
	return d
}
