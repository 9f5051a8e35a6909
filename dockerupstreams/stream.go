package dockerupstreams

import (
	"context"
	"fmt"
	"io"
	"time"
)

const (
	// While more events than this arrive in a tenth of a second, the stream is read every
	// few milliseconds: waking up for each event costs more than decoding it.
	busyEvents = 20
	busyPause  = 10 * time.Millisecond

	// A read that took longer had to wait: the buffer is empty.
	drainedRead = 200 * time.Microsecond
)

// pump reads events until the stream ends, and passes them on in groups as they arrive. It
// never delays complete events for incomplete ones.
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

// readGroup returns the events that have arrived completely.
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
