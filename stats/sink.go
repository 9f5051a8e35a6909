package stats

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Sink exports statistics, for example to a file or a database. Modules in the namespace
// `rgate.stats.sinks` must implement it. A Sink that implements io.Closer is closed after
// the last snapshot. It must release its resources in Close, not in Cleanup.
type Sink interface {
	// Write writes a snapshot. If it fails, the snapshot is dropped; the next one is
	// cumulative and contains its statistics. Write is never called on the request path
	// or concurrently. It must return soon after ctx is done, and must not modify the
	// snapshot.
	Write(ctx context.Context, s Snapshot) error
}

const (
	// writeTimeout is the timeout of one write, so that a hanging sink does not block
	// others.
	writeTimeout = 10 * time.Second

	// finalTimeout is the timeout of the last write to each sink, which delays a reload.
	finalTimeout = 3 * time.Second

	// recentSnapshots is the number of snapshots kept in memory: one hour by default.
	recentSnapshots = 60
)

// Memory is a sink that keeps the last snapshots without sketches. It is safe for
// concurrent use.
type Memory struct {
	size int

	mu   sync.Mutex
	last []Snapshot // guarded by mu
}

// NewMemory creates a sink that keeps up to n snapshots. The minimum is one.
func NewMemory(n int) *Memory {
	return &Memory{size: max(n, 1)}
}

// Write adds a snapshot. If the sink is full, it replaces the oldest one. Write never
// fails.
func (m *Memory) Write(_ context.Context, s Snapshot) error {
	s.Series = slices.Clone(s.Series)
	for i := range s.Series {
		s.Series[i].Sketch = nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.last) == m.size {
		m.last = slices.Delete(m.last, 0, 1)
	}
	m.last = append(m.last, s)
	return nil
}

// Snapshots returns the kept snapshots, oldest first.
func (m *Memory) Snapshots() []Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.last)
}

// reporter sends snapshots to sinks in one goroutine.
type reporter struct {
	rec     *Recorder
	recent  *Memory
	outlets []*outlet
	logger  *zap.Logger
	cancel  context.CancelFunc
	done    chan struct{}
	err     error // error on close; read after done
}

// outlet is a sink with its state.
type outlet struct {
	name    string
	sink    Sink
	dropped int // consecutive failed writes
}

func startReporter(rec *Recorder, outlets []*outlet, interval time.Duration, logger *zap.Logger) *reporter {
	ctx, cancel := context.WithCancel(context.Background())
	r := &reporter{
		rec:     rec,
		recent:  NewMemory(recentSnapshots),
		outlets: outlets,
		logger:  logger,
		cancel:  cancel,
		done:    make(chan struct{}),
	}
	go r.run(ctx, interval)
	return r
}

func (r *reporter) run(ctx context.Context, interval time.Duration) {
	defer close(r.done)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.report(ctx, r.rec.Snapshot(), writeTimeout)
		case <-ctx.Done():
			// Do not write anything for a configuration that is only validated.
			if snap := r.rec.Snapshot(); !snap.empty() {
				r.report(context.WithoutCancel(ctx), snap, finalTimeout)
			}
			r.err = r.closeSinks()
			return
		}
	}
}

// stop sends a last snapshot and stops the goroutine. It limits the wait, because
// a sink that ignores its context would block a reload.
func (r *reporter) stop() error {
	r.cancel()
	patience := time.NewTimer(time.Duration(len(r.outlets)+1) * 2 * finalTimeout)
	defer patience.Stop()
	select {
	case <-r.done:
		return r.err
	case <-patience.C:
		return errors.New("stopping stats sinks: timeout: Write must return when its context is canceled")
	}
}

func (r *reporter) report(ctx context.Context, snap Snapshot, timeout time.Duration) {
	_ = r.recent.Write(ctx, snap)
	for _, o := range r.outlets {
		failed := o.dropped
		err := o.write(ctx, snap, timeout)
		switch {
		case err != nil && failed == 0:
			r.logger.Error("stats sink failed",
				zap.String("sink", o.name), zap.Error(err))
		case err == nil && failed > 0:
			r.logger.Info("stats sink recovered",
				zap.String("sink", o.name), zap.Int("dropped", failed))
		}
	}
}

// write writes a snapshot to the sink. A panic counts as an error.
func (o *outlet) write(ctx context.Context, snap Snapshot, timeout time.Duration) (err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("writing a snapshot: panic: %v", cause)
		}
		if err != nil {
			o.dropped++
		} else {
			o.dropped = 0
		}
	}()
	return o.sink.Write(ctx, snap)
}

func (r *reporter) closeSinks() (err error) {
	for _, o := range r.outlets {
		if closer, ok := o.sink.(io.Closer); ok {
			if e := closer.Close(); e != nil {
				err = errors.Join(err, fmt.Errorf("closing stats sink %s: %w", o.name, e))
			}
		}
	}
	return err
}

// Interface guard
var _ Sink = (*Memory)(nil)
