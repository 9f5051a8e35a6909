package dockerupstreams

import "time"

// limiter lets a burst through at once and then so many per second. The zero
// value is full.
type limiter struct {
	free time.Time // when the last of the used-up turns is paid for
}

const (
	listsAtOnce    = 40
	listsPerSecond = 20
)

// next returns when the next turn is due: now, or later.
func (l *limiter) next(now time.Time) time.Time {
	const credit = listsAtOnce - 1
	if due := l.free.Add(-credit * time.Second / listsPerSecond); due.After(now) {
		return due
	}
	return now
}

// take uses up a turn.
func (l *limiter) take(now time.Time) {
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Second / listsPerSecond)
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
