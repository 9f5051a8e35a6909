package dockerupstreams

import "time"

// limiter lets a burst through at once and then so many per second.
type limiter struct {
	burst, perSecond int

	free time.Time // when the last of the used-up turns is paid for
}

// Rolling updates and restarts of single services stay within the bursts, and
// have effect at once. Under a storm of events, containers are listed, and sets
// are published, in groups.
func newListLimiter() limiter    { return limiter{burst: 40, perSecond: 20} }
func newPublishLimiter() limiter { return limiter{burst: 40, perSecond: 50} }

// next returns when the next turn is due: now, or later.
func (l *limiter) next(now time.Time) time.Time {
	credit := time.Duration(l.burst-1) * time.Second / time.Duration(l.perSecond)
	return later(now, l.free.Add(-credit))
}

// take uses up a turn.
func (l *limiter) take(now time.Time) {
	l.free = later(now, l.free).Add(time.Second / time.Duration(l.perSecond))
}

// backoff is how long to wait before another attempt after so many failures in
// a row: from 100 ms, doubling, to 10 s, of which random (0 to 1) decides half,
// so that many gateways do not come back to an engine at once.
func backoff(failures int, random float64) time.Duration {
	const first, most = 100 * time.Millisecond, 10 * time.Second
	wait := most
	if doublings := max(failures-1, 0); doublings < 7 {
		wait = min(first<<doublings, most)
	}
	return wait/2 + time.Duration(random*float64(wait)/2)
}
