package ratelimit

import (
	"math"
	"math/bits"
	"time"
)

// The maximum of requests and window, so that counts fit into 32 bits and twice a window
// into a time.Duration.
const (
	maxRequests = 1_000_000_000
	maxWindow   = 366 * 24 * time.Hour
)

// limit is a maximum number of requests in any period as long as the window. A request can
// count for several: its cost.
//
// Requests are counted by a sliding window counter (Desgats, "How we built rate
// limiting capable of scaling to millions of domains", Cloudflare, 2017): those of
// the current window, and of the window before as many as there would still be if
// they had come evenly. Two things make it more exact: the window of a key begins
// with the first request of the key, and the requests of a window are taken to have
// come evenly until the last of them, not until the window's end. After a burst, all
// is free again as soon as the burst is a window ago.
type limit struct {
	requests int64
	window   time.Duration
}

// counter has the requests of a key under one limit.
type counter struct {
	begin             time.Duration // of the current window
	current, previous bucket
}

// bucket has the requests of a window.
type bucket struct {
	count uint32        // the sum of their costs
	last  time.Duration // when the last one came, since the begin of the window
}

// roll advances the counter to a time, if nothing was added since.
func (c *counter) roll(now, window time.Duration) {
	age := now - c.begin
	if age < window { // also if another request was faster, and now is before begin
		return
	}
	if age < 2*window {
		c.begin, c.previous, c.current = c.begin+window, c.current, bucket{}
		return
	}
	*c = counter{begin: now}
}

// add counts a request.
func (c *counter) add(now time.Duration, cost int64) {
	c.current.count = uint32(min(int64(c.current.count)+cost, math.MaxUint32))
	c.current.last = max(c.current.last, c.elapsed(now))
}

// elapsed returns the age of the current window.
func (c *counter) elapsed(now time.Duration) time.Duration { return max(0, now-c.begin) }

// used returns the used part of a limit, rounded up.
func (c *counter) used(now time.Duration) int64 {
	return int64(c.current.count) + c.previous.left(c.elapsed(now))
}

// left is how many requests of a window are less than a window ago when the next one
// has lasted that long, rounded up.
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

// gone is how long the next window must last until no more than so many are left.
func (b *bucket) gone(left int64) time.Duration {
	if left >= int64(b.count) {
		return 0
	}
	hi, lo := bits.Mul64(uint64(left), uint64(b.last))
	quotient, _ := bits.Div64(hi, lo, uint64(b.count))
	return b.last - time.Duration(quotient)
}

// wait is how long a request that is refused now has to wait, if no other comes in
// between. It is the whole window for one that costs more than the limit, which
// never passes.
func (l limit) wait(c *counter, now time.Duration, cost int64) time.Duration {
	room := l.requests - cost
	if room < 0 {
		return l.window
	}
	if current := int64(c.current.count); current <= room { // then it is the window before that is in the way
		return c.previous.gone(room-current) - c.elapsed(now)
	}
	return l.window - c.elapsed(now) + c.current.gone(room)
}

// decision is the result of counting a request.
type decision struct {
	admitted bool

	// Of the limit that is nearest to being used up, or that a refused request has
	// to wait longest for.
	limit     limit
	remaining int64 // after this request, if it was admitted

	// Until the current window ends; for a refused request, until it would pass.
	after time.Duration
}

// judge decides about a request under one limit.
func (l limit) judge(c *counter, now time.Duration, cost int64) decision {
	left := l.requests - c.used(now)
	if cost > left {
		return decision{limit: l, remaining: max(0, left), after: l.wait(c, now, cost)}
	}
	return decision{admitted: true, limit: l, remaining: left - cost, after: l.window - c.elapsed(now)}
}

// and combines decisions: all limits must admit the request.
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
