package stats

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// MaxConsumers is how many consumers a recorder tells apart at a time. Further ones
	// are counted together as Other.
	MaxConsumers = 10_000

	// idleAccounts is how long a consumer's account is kept without traffic.
	idleAccounts = 10 * time.Minute
)

// account is a consumer's part of a series' traffic that has not been drained.
type account struct {
	flowing
	series   *Series
	consumer string

	closed  atomic.Bool   // another one takes its place
	lastUse time.Duration // as far as who drains has seen
}

// add counts bytes.
func (a *account) add(t Traffic) {
	a.flowing.add(t)
	// As with stripes: who closes the account takes what is there afterwards.
	if a.closed.Load() {
		a.series.account(a.consumer).add(a.take())
	}
}

// accounts are the open accounts of a series. They are found without a lock.
type accounts struct {
	byConsumer sync.Map // of *account
	heir       *Series  // who has them once the series is retired; guarded by rec.consumers.mu
}

// consumers counts how many accounts each consumer has, to keep them within a limit.
type consumers struct {
	wanted atomic.Bool // somebody drains them
	limit  int

	mu   sync.Mutex
	open map[string]int // guarded by mu
}

// account returns the account of a consumer.
func (s *Series) account(consumer string) *account {
	if a, ok := s.accounts.byConsumer.Load(consumer); ok {
		return a.(*account)
	}
	return s.openAccount(strings.ToValidUTF8(consumer, "\uFFFD"))
}

func (s *Series) openAccount(consumer string) *account {
	all := &s.rec.consumers
	all.mu.Lock()
	defer all.mu.Unlock()
	for s.accounts.heir != nil {
		s = s.accounts.heir
	}
	if all.open[consumer] == 0 && len(all.open) >= all.limit {
		consumer = Other
	}
	if a, ok := s.accounts.byConsumer.Load(consumer); ok {
		return a.(*account)
	}
	a := &account{series: s, consumer: consumer, lastUse: s.rec.now()}
	if all.open == nil {
		all.open = make(map[string]int)
	}
	all.open[consumer]++
	s.accounts.byConsumer.Store(consumer, a)
	return a
}

// close takes an account off the list, and returns what nobody has taken from it. Who
// still counts in it finds the one in its place.
func (a *account) close() Traffic {
	all := &a.series.rec.consumers
	all.mu.Lock()
	a.series.accounts.byConsumer.Delete(a.consumer)
	if all.open[a.consumer]--; all.open[a.consumer] == 0 {
		delete(all.open, a.consumer)
	}
	all.mu.Unlock()
	a.closed.Store(true)
	return a.take()
}

// drainAccounts returns what each consumer's part came to since the last call. Those
// that have been idle for long are forgotten.
func (s *Series) drainAccounts() (parts []Interval) {
	now := s.rec.now()
	s.accounts.byConsumer.Range(func(_, value any) bool {
		a := value.(*account)
		t := a.take()
		if t != (Traffic{}) {
			a.lastUse = now
		} else if now-a.lastUse > idleAccounts {
			t = a.close()
		}
		if t != (Traffic{}) {
			parts = append(parts, Interval{Consumer: a.consumer, Traffic: t})
		}
		return true
	})
	return parts
}

// bequeathAccounts moves what consumers have to the heir.
func (s *Series) bequeathAccounts(heir *Series) {
	all := &s.rec.consumers
	all.mu.Lock()
	s.accounts.heir = heir
	all.mu.Unlock()
	s.accounts.byConsumer.Range(func(_, value any) bool {
		a := value.(*account)
		if t := a.close(); t != (Traffic{}) {
			heir.account(a.consumer).add(t)
		}
		return true
	})
}
