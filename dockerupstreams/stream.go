package dockerupstreams

import (
	"context"
	"fmt"
	"io"
	"time"
)

const (
	// After more than busyEvents events in 100 ms, the stream is read every busyPause:
	// a wake-up per event costs more than decoding it.
	busyEvents = 20
	busyPause  = 10 * time.Millisecond

	// The minimum duration of a read that waited for data.
	drainedRead = 200 * time.Microsecond
)

// pump reads events until the stream ends and sends them to the channel in batches.
// Complete events do not wait for the rest of an incomplete event.
func pump(ctx context.Context, from io.Reader, to chan<- []event) error {
	in := newValues(from)
	window, events, busy := time.Now(), 0, false
	for {
		group, err := readGroup(in)
		if len(group) > 0 {
			select {
			case to <- group:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err != nil {
			return err
		}
		begun := time.Now()
		if err := in.more(); err != nil {
			return err
		}
		now := time.Now()
		events += len(group)
		if now.Sub(window) >= 100*time.Millisecond {
			window, events, busy = now, 0, events > busyEvents
		}
		if busy && now.Sub(begun) > drainedRead {
			sleep(ctx, busyPause)
		}
	}
}

// readGroup returns all completely buffered events.
func readGroup(in *values) (group []event, err error) {
	for {
		text, err := in.buffered()
		if text == nil || err != nil {
			return group, err
		}
		e, matters, err := decodeEvent(text)
		if err != nil {
			return group, fmt.Errorf("invalid event: %w", err)
		}
		if matters {
			group = append(group, e)
		}
	}
}

func sleep(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
