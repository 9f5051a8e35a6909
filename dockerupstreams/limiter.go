package dockerupstreams

import "time"

// limiter is a token bucket (GCRA): it allows burst calls, then perSecond calls per
// second.
type limiter struct {
	burst, perSecond int

	free time.Time // when the bucket is full again
}

// The bursts cover rolling updates and restarts of single services, which take effect
// immediately. At higher event rates, lists and updates of sets are batched.
func newListLimiter() limiter    { return limiter{burst: 40, perSecond: 20} }
func newPublishLimiter() limiter { return limiter{burst: 40, perSecond: 50} }

// next returns the time of the next allowed call: now, or later.
func (l *limiter) next(now time.Time) time.Time {
	credit := time.Duration(l.burst-1) * time.Second / time.Duration(l.perSecond)
	return later(now, l.free.Add(-credit))
}

// take consumes a token.
func (l *limiter) take(now time.Time) {
	l.free = later(now, l.free).Add(time.Second / time.Duration(l.perSecond))
}

// backoff returns the delay after a number of consecutive failures. It doubles from 100
// ms to 10 s. Half of it is jitter: random is in [0, 1).
func backoff(failures int, random float64) time.Duration {
	const first, most = 100 * time.Millisecond, 10 * time.Second
	wait := most
	if doublings := max(failures-1, 0); doublings < 7 {
		wait = min(first<<doublings, most)
	}
	return wait/2 + time.Duration(random*float64(wait)/2)
}
