package dockerupstreams

import "time"

// limiter allows a burst, and then perSecond.
type limiter struct {
	burst, perSecond int

	free time.Time // when all used turns have been restored
}

// Rolling updates and restarts of single services stay within the bursts, and take effect
// at once. Under a storm of events, containers are listed and sets are published in
// groups.
func newListLimiter() limiter    { return limiter{burst: 40, perSecond: 20} }
func newPublishLimiter() limiter { return limiter{burst: 40, perSecond: 50} }

// next returns the time of the next turn: now, or later.
func (l *limiter) next(now time.Time) time.Time {
	credit := time.Duration(l.burst-1) * time.Second / time.Duration(l.perSecond)
	return later(now, l.free.Add(-credit))
}

// take uses a turn.
func (l *limiter) take(now time.Time) {
	l.free = later(now, l.free).Add(time.Second / time.Duration(l.perSecond))
}

// backoff returns the delay before the next attempt after a number of consecutive
// failures: from 100 ms, doubling, to 10 s, half of which is random (0 to 1), so that
// gateways do not reconnect at the same time.
func backoff(failures int, random float64) time.Duration {
	const first, most = 100 * time.Millisecond, 10 * time.Second
	wait := most
	if doublings := max(failures-1, 0); doublings < 7 {
		wait = min(first<<doublings, most)
	}
	return wait/2 + time.Duration(random*float64(wait)/2)
}
