package stats

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// MaxConsumers is the maximum number of consumers that a recorder counts separately.
	// Further consumers are counted together as Other.
	MaxConsumers = 10_000

	// idleAccounts is the time after which an account without traffic is closed.
	idleAccounts = 10 * time.Minute
)

// account counts a consumer's traffic in a series between drains.
type account struct {
	flowing
	series   *Series
	consumer string

	closed  atomic.Bool   // replaced by another account
	lastUse time.Duration // time of the last drain with traffic
}

// add adds bytes to the counts.
func (a *account) add(t Traffic) {
	a.flowing.add(t)
	// If the account was closed concurrently, move the bytes to its replacement, as in
	// shards.
	if a.closed.Load() {
		a.series.account(a.consumer).add(a.take())
	}
}

// accounts holds the open accounts of a series. Lookups take no lock.
type accounts struct {
	byConsumer sync.Map // maps consumers to *account
	successor  *Series  // receives the accounts once the series is retired; guarded by rec.consumers.mu
}

// consumers counts the open accounts per consumer and limits the number of consumers.
type consumers struct {
	wanted atomic.Bool // set by HoldRecorder and Drain
	limit  int

	mu   sync.Mutex
	open map[string]int // guarded by mu
}

// account returns the account of a consumer and opens it if needed. Above the maximum
// number of consumers, it returns the account of Other.
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
	for s.accounts.successor != nil {
		s = s.accounts.successor
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

// close removes an account and returns the bytes that have not been drained. Bytes that
// are added to it later go to its replacement.
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

// drainAccounts returns the traffic per consumer since the last call. It closes idle
// accounts.
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

// handOverAccounts moves the accounts to the successor.
func (s *Series) handOverAccounts(successor *Series) {
	all := &s.rec.consumers
	all.mu.Lock()
	s.accounts.successor = successor
	all.mu.Unlock()
	s.accounts.byConsumer.Range(func(_, value any) bool {
		a := value.(*account)
		if t := a.close(); t != (Traffic{}) {
			successor.account(a.consumer).add(t)
		}
		return true
	})
}
