package coalesce

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// sharedContext is the context of a request that several clients may wait for. It has the
// values of the first client's context, but is not canceled with it: if the first client
// disconnects, owner decides. It allocates only when Done or Err is called.
type sharedContext struct {
	first context.Context
	owner interface{ leaderLeft() } // notified when the first client disconnects, if Done or Err was called

	mu         sync.Mutex                 // held while end is created
	cancelable cancelable                 // set under mu, before end
	end        atomic.Pointer[cancelable] // points to cancelable, or nil before the first use
	stop       func() bool                // stops watching the first client. Guarded by mu.
}

// cancelable is the cancelable part of a sharedContext. It is a context of the standard
// library, so that derived contexts need no goroutine.
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

// cancel cancels the context.
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

// Deadline implements context.Context. The first client's deadline does not apply. When
// it expires, the context is canceled if no other client waits.
func (l *sharedContext) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (l *sharedContext) Done() <-chan struct{} { return l.ending().Done() }

// Err implements context.Context.
func (l *sharedContext) Err() error { return l.ending().Err() }

// Value implements context.Context. It queries the cancelable context first because
// package context finds cancelable parents by a value.
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
