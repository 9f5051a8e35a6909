package coalesce

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// contextOwner records the notification.
type contextOwner struct{ notified chan struct{} }

func (o contextOwner) leaderLeft() { close(o.notified) }

type contextKey struct{}

func TestSharedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, leave := context.WithCancel(context.WithValue(t.Context(), contextKey{}, "value"))
		owner := contextOwner{make(chan struct{})}
		l := &sharedContext{first: first, owner: owner}
		child, cancel := context.WithTimeout(l, 1<<62)
		defer cancel()
		leave()
		<-owner.notified
		if child.Err() != nil || l.Err() != nil {
			t.Error("it ends with the first client")
		}
		if child.Value(contextKey{}) != "value" || l.Value("other") != nil {
			t.Error("the values are others")
		}
		cause := errors.New("all clients disconnected")
		l.cancel(cause)
		<-child.Done()
		if context.Cause(child) != cause || !errors.Is(child.Err(), context.Canceled) {
			t.Errorf("it ended with %v and %v", child.Err(), context.Cause(child))
		}
		l.release()
	})
}

// After release, the owner is not notified and no resources are left.
func TestSharedContextIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, leave := context.WithCancel(t.Context())
		l := &sharedContext{first: first, owner: contextOwner{nil}} // close(nil) would panic
		done := l.Done()
		l.release()
		<-done
		leave()
		synctest.Wait()
		(&sharedContext{first: first}).release() // Done was not called
	})
}
