package coalesce

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// lifelineOwner notes that it was told.
type lifelineOwner struct{ told chan struct{} }

func (o lifelineOwner) leaderLeft() { close(o.told) }

type lifelineKey struct{}

func TestLifeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, leave := context.WithCancel(context.WithValue(t.Context(), lifelineKey{}, "value"))
		owner := lifelineOwner{make(chan struct{})}
		l := &lifeline{first: first, owner: owner}
		child, cancel := context.WithTimeout(l, 1<<62)
		defer cancel()
		leave()
		<-owner.told
		if child.Err() != nil || l.Err() != nil {
			t.Error("it ends with the first client")
		}
		if child.Value(lifelineKey{}) != "value" || l.Value("other") != nil {
			t.Error("the values are others")
		}
		cause := errors.New("nobody is left")
		l.cut(cause)
		<-child.Done()
		if context.Cause(child) != cause || !errors.Is(child.Err(), context.Canceled) {
			t.Errorf("it ended with %v and %v", child.Err(), context.Cause(child))
		}
		l.release()
	})
}

// Nobody is told once it is over, and nothing is left behind.
func TestLifelineIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, leave := context.WithCancel(t.Context())
		l := &lifeline{first: first, owner: lifelineOwner{nil}} // who would panic
		done := l.Done()
		l.release()
		<-done
		leave()
		synctest.Wait()
		(&lifeline{first: first}).release() // nobody has asked for its end
	})
}
