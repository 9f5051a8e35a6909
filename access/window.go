package access

import (
	"math"
	"math/bits"
	"time"
)

// The most that a limit may let through, and the longest window, so that counts
// fit into 32 bits and twice a window into a time.Duration.
const (
	maxRequests = 1_000_000_000
	maxWindow   = 366 * 24 * time.Hour
)

// began is when the counting of time began: a time.Duration since then is smaller
// than a time.Time, and cheaper to get.
var began = time.Now()

// uptime is the time that limits are counted by. It does not go backwards.
func uptime() time.Duration { return time.Since(began) }

// limit is how many requests may pass within any span of time that is as long as
// the window. A request may count for several: its cost.
//
// Requests are counted by a sliding window counter (Desgats, "How we built rate
// limiting capable of scaling to millions of domains", Cloudflare, 2017): those of
// the current window, and of the window before as many as would be left if they
// had come evenly. The window of a key begins with the first request of the key,
// not at full minutes: whoever sends all that is allowed at once has to wait for
// a whole window.
type limit struct {
	requests int64
	window   time.Duration
}

// counter is what is known of a key under one limit. The zero counter knows of no
// request.
type counter struct {
	begin             time.Duration // of the current window
	current, previous uint32        // costs in this window and the one before
}

// at is the counter at a time, if nothing is added to it until then.
func (c counter) at(now, window time.Duration) counter {
	switch age := now - c.begin; {
	case age < window: // also if another request was faster, and now is before begin
		return c
	case age < 2*window:
		return counter{begin: c.begin + window, previous: c.current}
	}
	return counter{begin: now}
}

// add counts a request.
func (c *counter) add(cost int64) {
	c.current = uint32(min(int64(c.current)+cost, math.MaxUint32))
}

// elapsed is how long the current window has lasted.
func (c counter) elapsed(now time.Duration) time.Duration { return max(0, now-c.begin) }

// used is how much of the limit is used up, rounded up.
func (l limit) used(c counter, now time.Duration) int64 {
	if c.previous == 0 {
		return int64(c.current)
	}
	// previous × left ÷ window, in 128 bits.
	hi, lo := bits.Mul64(uint64(c.previous), uint64(l.window-c.elapsed(now)))
	quotient, remainder := bits.Div64(hi, lo, uint64(l.window))
	if remainder > 0 {
		quotient++
	}
	return int64(quotient) + int64(c.current)
}

// wait is how long a request that is refused now has to wait, if no other comes in
// between. It is the whole window for one that costs more than the limit, which
// never passes.
func (l limit) wait(c counter, now time.Duration, cost int64) time.Duration {
	room := l.requests - cost
	if room < 0 {
		return l.window
	}
	if int64(c.current) <= room { // then it is the window before that is in the way
		return l.faded(c.previous, room-int64(c.current)) - c.elapsed(now)
	}
	return l.window - c.elapsed(now) + l.faded(c.current, room)
}

// faded is how far into a window that many requests of the one before weigh no
// more than the room that there is for them.
func (l limit) faded(previous uint32, room int64) time.Duration {
	if room >= int64(previous) {
		return 0
	}
	hi, lo := bits.Mul64(uint64(room), uint64(l.window))
	quotient, _ := bits.Div64(hi, lo, uint64(previous))
	return l.window - time.Duration(quotient)
}

// decision is whether a request passes its limits, and what its sender is told.
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
func (l limit) judge(c counter, now time.Duration, cost int64) decision {
	left := l.requests - l.used(c, now)
	if cost > left {
		return decision{limit: l, remaining: max(0, left), after: l.wait(c, now, cost)}
	}
	return decision{admitted: true, limit: l, remaining: left - cost, after: l.window - c.elapsed(now)}
}

// and is the decision under several limits: all of them must admit the request.
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
