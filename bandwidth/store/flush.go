package store

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/pause"
)

const (
	maxBatch     = 5000 // rows of minutes in a transaction, about
	flushTimeout = 15 * time.Second
)

// Flush writes everything that has been collected. It keeps what it cannot write.
func (l *Store) Flush(ctx context.Context) error {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	if l.db.closeRemoved() {
		clear(l.ids) // of the removed file
	}
	var err error
	for more := true; more && err == nil; {
		more, err = l.flushBatch(ctx)
	}
	if err == nil {
		err = l.writeMarks(ctx)
	}
	if err != nil {
		clear(l.ids) // the database may be another one after a failure
	}
	l.report(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.after {
		pause.Wake(s.signal)
	}
	return err
}

// flushBatch writes one batch, and reports whether more is waiting. A batch with an unknown
// outcome stays the same until it is written: the database has the numbers of written
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

// report stores the error of a flush, and logs when flushes begin or cease to fail.
func (l *Store) report(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.problem
	switch {
	case err == nil && before != "":
		l.problem = ""
		l.logger.Info("bandwidth is written again, nothing was lost",
			zap.String("store", l.db.name), zap.Duration("away", l.now().Sub(l.problemSince)))
	case err != nil:
		l.problem = err.Error()
		if before == "" {
			l.problemSince = l.now()
			l.logger.Warn("bandwidth cannot be written, it is kept in memory until the store is back",
				zap.String("store", l.db.name), zap.Error(err))
		}
	}
}

// subscriber is a caller of AfterFlush.
type subscriber struct{ signal chan struct{} }

// AfterFlush calls f in a goroutine after every flush, successful or not. Calls do not
// overlap: if f is slow, there are fewer. stop ends the calls and waits for a running one.
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
		close(s.signal) // no longer in l.after
		running.Wait()
	})
}
