// Package pause contains interruptible sleeps for background loops.
package pause

import (
	"context"
	"time"
)

// For sleeps for d. If ctx is done first, it returns false.
func For(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// UntilWoken sleeps for at least least and at most most. Between the two, a value on
// wake ends the sleep. It returns false if ctx is done first.
func UntilWoken(ctx context.Context, wake <-chan struct{}, least, most time.Duration) bool {
	if !For(ctx, least) {
		return false
	}
	timer := time.NewTimer(max(most-least, 0))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-wake:
	}
	return true
}

// Wake ends the sleep of UntilWoken. ch must have a buffer of one. Wake does not block.
func Wake(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
