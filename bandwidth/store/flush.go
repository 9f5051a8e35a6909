package store

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/pause"
)

const (
	maxBatch     = 5000 // approximate maximum number of minute rows in a transaction
	flushTimeout = 15 * time.Second
)

// Flush writes all collected rows. Rows of a failed write stay in memory.
func (l *Store) Flush(ctx context.Context) error {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	if l.db.closeRemoved() {
		clear(l.ids) // the IDs belong to the removed file
	}
	var err error
	for more := true; more && err == nil; {
		more, err = l.flushBatch(ctx)
	}
	if err == nil {
		err = l.writeMarks(ctx)
	}
	if err != nil {
		clear(l.ids) // the database may have been replaced
	}
	l.report(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.after {
		pause.Wake(s.signal)
	}
	return err
}

// flushBatch writes one batch and reports whether more rows are pending. A batch with an
// unknown outcome is retried unchanged: the database records the numbers of written
// batches. The caller holds l.flushing.
func (l *Store) flushBatch(ctx context.Context) (more bool, err error) {
	l.mu.Lock()
	if l.writing == nil && l.pending.len() > 0 {
		l.writing = l.pending.take(maxBatch)
		l.seq++
		more = l.pending.len() > 0
	} else {
		more = l.writing != nil && l.pending.len() > 0
	}
	b, seq := l.writing, l.seq
	l.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if b == nil {
		var one int
		return false, l.db.QueryRow(ctx, "SELECT 1").Scan(&one)
	}
	if err := l.write(ctx, b, seq); err != nil {
		return false, err
	}
	l.mu.Lock()
	l.writing = nil
	l.mu.Unlock()
	return more, nil
}

// report stores the error of a flush, and logs the first failure and the recovery.
func (l *Store) report(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.problem
	switch {
	case err == nil && before != "":
		l.problem = ""
		l.logger.Info("writing bandwidth to the store succeeded again, no bytes were lost",
			zap.String("store", l.db.name), zap.Duration("away", l.now().Sub(l.problemSince)))
	case errors.Is(err, context.Canceled): // the end of the process, before the last flush
	case err != nil:
		l.problem = err.Error()
		if before == "" {
			l.problemSince = l.now()
			l.logger.Warn("writing bandwidth to the store failed, keeping usage in memory until the store is available",
				zap.String("store", l.db.name), zap.Error(err))
		}
	}
}

// subscriber is an AfterFlush subscription.
type subscriber struct{ signal chan struct{} }

// AfterFlush calls f in a goroutine after each flush, successful or not. Calls do not
// overlap; flushes during a call cause one more call. stop unsubscribes and waits for a
// running call.
func (l *Store) AfterFlush(f func()) (stop func()) {
	s := &subscriber{signal: make(chan struct{}, 1)}
	l.mu.Lock()
	l.after[s] = struct{}{}
	l.mu.Unlock()
	var running sync.WaitGroup
	running.Go(func() {
		for range s.signal {
			f()
		}
	})
	return sync.OnceFunc(func() {
		l.mu.Lock()
		delete(l.after, s)
		l.mu.Unlock()
		close(s.signal) // safe: s is no longer in l.after
		running.Wait()
	})
}
