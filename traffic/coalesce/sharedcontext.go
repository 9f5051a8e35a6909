package coalesce

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// sharedContext is the context of a request that several clients may wait for. It has the
// values of the first client's context, and ends when it is canceled, even if the first
// client stays. It allocates nothing until Done or Err is called, as proxies do.
type sharedContext struct {
	first context.Context
	owner interface{ leaderLeft() } // notified when the first client leaves, once Done or Err was called

	mu         sync.Mutex                 // held while the end is made
	cancelable cancelable                 // set under mu, before end
	end        atomic.Pointer[cancelable] // the one above, or nil: not used yet
	stop       func() bool                // no longer watches the first client. Guarded by mu.
}

// cancelable is the end of a sharedContext. It is a context of the standard library, so that
// contexts derived from it need no goroutine.
type cancelable struct {
	context.Context
	cancel context.CancelCauseFunc
}

func (l *sharedContext) ending() *cancelable {
	if f := l.end.Load(); f != nil {
		return f
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.end.Load()
	if f == nil {
		f = &l.cancelable
		f.Context, f.cancel = context.WithCancelCause(context.Background())
		l.end.Store(f)
		l.stop = context.AfterFunc(l.first, l.owner.leaderLeft)
	}
	return f
}

// cancel ends the context.
func (l *sharedContext) cancel(cause error) { l.ending().cancel(cause) }

// release releases the resources of the context.
func (l *sharedContext) release() {
	f := l.end.Load()
	if f == nil {
		return
	}
	l.mu.Lock()
	stop := l.stop
	l.mu.Unlock()
	stop()
	f.cancel(context.Canceled)
}

// Deadline implements context.Context. The first client's deadline does not apply: if it
// passes and no other client waits, the context is canceled.
func (l *sharedContext) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (l *sharedContext) Done() <-chan struct{} { return l.ending().Done() }

// Err implements context.Context.
func (l *sharedContext) Err() error { return l.ending().Err() }

// Value implements context.Context. The end comes first: package context identifies parents
// by a value.
func (l *sharedContext) Value(key any) any {
	if f := l.end.Load(); f != nil {
		if value := f.Value(key); value != nil {
			return value
		}
	}
	return l.first.Value(key)
}

// Interface guard
var _ context.Context = (*sharedContext)(nil)
