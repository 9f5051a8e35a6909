package coalesce

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// lifeline is the context of a request that several clients may wait for. It has the
// values of the first one's context, and ends when it is cut, whatever becomes of
// that one. Nothing is made before somebody asks for its end, as a proxy does: what
// is answered without that costs nothing.
type lifeline struct {
	first context.Context
	owner interface{ leaderLeft() } // is told if the first client leaves, once somebody has asked

	mu   sync.Mutex           // held while the end is made
	fuse fuse                 // set under mu, before end
	end  atomic.Pointer[fuse] // the one above, or nil: nobody has asked
	stop func() bool          // no longer watches the first client. Guarded by mu.
}

// fuse is the end of a lifeline. It is a context of the standard library's, so that
// contexts derived from it need no goroutine.
type fuse struct {
	context.Context
	cut context.CancelCauseFunc
}

func (l *lifeline) ending() *fuse {
	if f := l.end.Load(); f != nil {
		return f
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.end.Load()
	if f == nil {
		f = &l.fuse
		f.Context, f.cut = context.WithCancelCause(context.Background())
		l.end.Store(f)
		l.stop = context.AfterFunc(l.first, l.owner.leaderLeft)
	}
	return f
}

// cut ends the context.
func (l *lifeline) cut(cause error) { l.ending().cut(cause) }

// release ends it when all is over.
func (l *lifeline) release() {
	f := l.end.Load()
	if f == nil {
		return
	}
	l.mu.Lock()
	stop := l.stop
	l.mu.Unlock()
	stop()
	f.cut(context.Canceled)
}

// Deadline implements context.Context. The first client's has no say in it: the
// lifeline is cut when that is over, if nobody else waits.
func (l *lifeline) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (l *lifeline) Done() <-chan struct{} { return l.ending().Done() }

// Err implements context.Context.
func (l *lifeline) Err() error { return l.ending().Err() }

// Value implements context.Context. The end comes first: by a value, package context
// finds out whose child a context is.
func (l *lifeline) Value(key any) any {
	if f := l.end.Load(); f != nil {
		if value := f.Value(key); value != nil {
			return value
		}
	}
	return l.first.Value(key)
}

// Interface guard
var _ context.Context = (*lifeline)(nil)
