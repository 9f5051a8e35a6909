// Package pause lets background loops sleep until a time has passed, a context has ended
// or another goroutine wakes them.
package pause

import (
	"context"
	"time"
)

// For sleeps for d. It returns early, and false, if ctx ends.
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

// UntilWoken sleeps for at least least and at most most. In between, a value on wake ends
// the sleep. It returns false if ctx ends.
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

// Wake ends UntilWoken on a channel with a buffer of one. It does not block.
func Wake(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
