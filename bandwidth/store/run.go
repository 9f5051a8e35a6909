package store

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/rgate/rgate/internal/pause"
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
		for pause.For(ctx, untilNextSecond(l.now())) {
			if l.isCurrent() {
				l.Collect()
			}
		}
	})
	l.running.Go(func() { l.flushLoop(ctx) })
	l.running.Go(func() { l.pruneLoop(ctx) })
}

// flushLoop begins after a second: a configuration that is only validated, or fails,
// does not come that far, and leaves no database behind.
func (l *Ledger) flushLoop(ctx context.Context) {
	delay, backoff := time.Second, time.Duration(0)
	for pause.For(ctx, delay) {
		if err := l.Flush(ctx); err != nil {
			backoff = min(max(2*backoff, minBackoff), maxBackoff)
			delay = backoff/2 + rand.N(backoff/2)
			continue
		}
		backoff = 0
		l.mu.Lock()
		delay = l.settings.FlushInterval
		l.mu.Unlock()
	}
}

func untilNextSecond(now time.Time) time.Duration {
	return now.Truncate(time.Second).Add(time.Second).Sub(now)
}
