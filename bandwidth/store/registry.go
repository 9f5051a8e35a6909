package store

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

// ledgers are those of the process. They outlive reloads.
var ledgers = caddy.NewUsagePool()

// LedgerKey is what ledgers are told apart by. A gateway has one, except while it
// changes from one store to another.
type LedgerKey struct{ Gateway, URL, Node string }

// books are the ledgers of each gateway, those of newer configurations last. Only the
// last takes what the gateway counts.
var books = struct {
	sync.Mutex
	of     map[string][]*Ledger
	atExit []*Ledger // to be closed when everything else has been
}{of: make(map[string][]*Ledger)}

// LedgerOf returns the ledger that the newest configuration of a gateway has made, or
// nil if it keeps no account.
func LedgerOf(gateway string) *Ledger {
	books.Lock()
	defer books.Unlock()
	if all := books.of[gateway]; len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

func (l *Ledger) isCurrent() bool { return LedgerOf(l.gateway) == l }

// enter makes a ledger its gateway's current one.
func (l *Ledger) enter() {
	books.Lock()
	defer books.Unlock()
	books.of[l.gateway] = append(slices.DeleteFunc(books.of[l.gateway], func(o *Ledger) bool { return o == l }), l)
}

// leave takes a ledger out, and returns the one that goes on, if any, and whether that
// is older, because a newer configuration has failed.
func (l *Ledger) leave() (next *Ledger, older bool) {
	books.Lock()
	defer books.Unlock()
	all := books.of[l.gateway]
	older = len(all) > 1 && all[len(all)-1] == l
	all = slices.DeleteFunc(all, func(o *Ledger) bool { return o == l })
	if len(all) == 0 {
		delete(books.of, l.gateway)
		return nil, false
	}
	books.of[l.gateway] = all
	return all[len(all)-1], older
}

// registerExit makes sure that ledgers are closed when the process ends.
var registerExit = sync.OnceFunc(func() {
	caddy.OnExit(func(context.Context) {
		books.Lock()
		all := books.atExit
		books.atExit = nil
		books.Unlock()
		var closing sync.WaitGroup
		for _, l := range all {
			closing.Go(func() { _ = l.Close() }) // which has logged what is wrong
		}
		closing.Wait()
	})
})

// AcquireLedger returns the ledger of a gateway, which must be released. It does not
// open the database.
func AcquireLedger(key LedgerKey, at Address, s Settings) (*Ledger, error) {
	value, _, err := ledgers.LoadOrNew(key, func() (caddy.Destructor, error) {
		recorder, release, err := stats.HoldRecorder(key.Gateway)
		if err != nil {
			return nil, err
		}
		registerExit()
		// The logger of a configuration may be closed before the ledger is.
		logger := caddy.Log().Named("http.handlers.rgate_bandwidth")
		l := NewLedger(key.Gateway, key.Node, at, recorder, time.Now, logger)
		l.release = release
		l.publish = policy.Publish(policy.Dependencies, policy.Place{}, l.state)
		l.start()
		return l, nil
	})
	if err != nil {
		return nil, err
	}
	l := value.(*Ledger)
	l.mu.Lock()
	l.settings = s
	l.mu.Unlock()
	l.enter()
	return l, nil
}

func ReleaseLedger(key LedgerKey) error {
	_, err := ledgers.Delete(key)
	return err
}

// Destruct implements caddy.Destructor. When the process ends, requests that were cut
// off have not ended yet: it is left for the very last.
func (l *Ledger) Destruct() error {
	if caddy.Exiting() {
		books.Lock()
		defer books.Unlock()
		books.atExit = append(books.atExit, l)
		return nil
	}
	return l.Close()
}

// closeTimeout is how long the end of a ledger may take.
const closeTimeout = 3 * time.Second

// Close takes what was counted, writes everything, and closes the database. If that
// fails, the gateway's next ledger takes over what has not been written.
func (l *Ledger) Close() error {
	if l.stop != nil {
		l.stop()
		l.running.Wait()
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	next, older := l.leave()
	if next == nil {
		l.Collect()
	}
	var err error
	switch {
	case older: // this one was never to be
	case l.hasRows() || l.db.isOpen():
		err = l.Flush(ctx)
	}
	if rest := l.takeAll(); rest.len() > 0 {
		if next != nil {
			next.adopt(rest, l.node)
		} else {
			l.logger.Error("bandwidth could not be written before the end and is lost",
				zap.String("store", l.db.name), zap.Int64("bytes", rest.total()), zap.Error(err))
		}
	}
	if l.db.isOpen() && err == nil {
		err = l.withdraw(ctx)
	}
	if l.publish != nil {
		l.publish()
	}
	if l.release != nil {
		err = errors.Join(err, l.release())
	}
	return errors.Join(err, l.db.Close())
}

func (l *Ledger) hasRows() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writing != nil || l.pending.len() > 0
}

// takeAll removes what has not been written.
func (l *Ledger) takeAll() *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.pending
	if l.writing != nil {
		all.merge(l.writing)
	}
	l.pending, l.writing = newBatch(), nil
	return all
}

// adopt takes over what another ledger of the same gateway could not write. Its own
// rows become those of this one's node.
func (l *Ledger) adopt(rest *batch, node string) {
	renamed := newBatch()
	for key, n := range rest.bytes {
		if key.gateway == node {
			key.gateway = l.node
		}
		renamed.addBytes(key, *n)
	}
	for key, f := range rest.requests {
		if key.gateway == node {
			key.gateway = l.node
		}
		renamed.addRequests(key, *f)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending.merge(renamed)
	l.bound()
}

// withdraw removes what only this ledger needs in the database.
func (l *Ledger) withdraw(ctx context.Context) error {
	return l.db.Tx(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM leases WHERE holder = ?", l.writer); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "DELETE FROM flushes WHERE writer = ?", l.writer)
		return err
	})
}
