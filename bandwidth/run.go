package bandwidth

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	minBackoff = 500 * time.Millisecond
	maxBackoff = 10 * time.Second
)

// start lets the ledger work: take what was counted at every whole second, and write
// at every flush interval.
func (l *Ledger) start() {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.running.Go(func() {
		for wait(ctx, untilNextSecond(l.now())) {
			if l.isCurrent() {
				l.collect()
			}
		}
	})
	l.running.Go(func() { l.flushLoop(ctx) })
	l.running.Go(func() { l.pruneLoop(ctx) })
}

// flushLoop begins after a second: a configuration that is only validated, or fails,
// does not come that far, and leaves no database behind.
func (l *Ledger) flushLoop(ctx context.Context) {
	pause, backoff := time.Second, time.Duration(0)
	for wait(ctx, pause) {
		if err := l.flush(ctx); err != nil {
			backoff = min(max(2*backoff, minBackoff), maxBackoff)
			pause = backoff/2 + rand.N(backoff/2)
			continue
		}
		backoff = 0
		l.mu.Lock()
		pause = l.settings.every
		l.mu.Unlock()
	}
}

// wait returns after some time, or at once and false if the context has ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func untilNextSecond(now time.Time) time.Duration {
	return now.Truncate(time.Second).Add(time.Second).Sub(now)
}
