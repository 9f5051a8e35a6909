package store

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/stats"
)

// pool are those of the process. They outlive reloads.
var pool = caddy.NewUsagePool()

// ID is what ledgers are told apart by. A gateway has one, except while it
// changes from one store to another.
type ID struct{ Gateway, URL, Node string }

// registry are the ledgers of each gateway, those of newer configurations last. Only the
// last takes what the gateway counts.
var registry = struct {
	sync.Mutex
	of     map[string][]*Store
	atExit []*Store // to be closed when everything else has been
}{of: make(map[string][]*Store)}

// For returns the ledger that the newest configuration of a gateway has made, or
// nil if it keeps no account.
func For(gateway string) *Store {
	registry.Lock()
	defer registry.Unlock()
	if all := registry.of[gateway]; len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

func (l *Store) isCurrent() bool { return For(l.gateway) == l }

// enter makes a ledger its gateway's current one.
func (l *Store) enter() {
	registry.Lock()
	defer registry.Unlock()
	registry.of[l.gateway] = append(slices.DeleteFunc(registry.of[l.gateway], func(o *Store) bool { return o == l }), l)
}

// leave takes a ledger out, and returns the one that goes on, if any, and whether that
// is older, because a newer configuration has failed.
func (l *Store) leave() (next *Store, older bool) {
	registry.Lock()
	defer registry.Unlock()
	all := registry.of[l.gateway]
	older = len(all) > 1 && all[len(all)-1] == l
	all = slices.DeleteFunc(all, func(o *Store) bool { return o == l })
	if len(all) == 0 {
		delete(registry.of, l.gateway)
		return nil, false
	}
	registry.of[l.gateway] = all
	return all[len(all)-1], older
}

// registerExit makes sure that ledgers are closed when the process ends.
var registerExit = sync.OnceFunc(func() {
	caddy.OnExit(func(context.Context) {
		registry.Lock()
		all := registry.atExit
		registry.atExit = nil
		registry.Unlock()
		var closing sync.WaitGroup
		for _, l := range all {
			closing.Go(func() { _ = l.Close() }) // which has logged what is wrong
		}
		closing.Wait()
	})
})

// Acquire returns the ledger of a gateway, which must be released. It does not
// open the database.
func Acquire(key ID, at Address, s Settings) (*Store, error) {
	value, _, err := pool.LoadOrNew(key, func() (caddy.Destructor, error) {
		recorder, release, err := stats.HoldRecorder(key.Gateway)
		if err != nil {
			return nil, err
		}
		registerExit()
		// The logger of a configuration may be closed before the ledger is.
		logger := caddy.Log().Named("http.handlers.rgate_bandwidth")
		l := New(key.Gateway, key.Node, at, recorder, time.Now, logger)
		l.release = release
		l.publish = status.Dependencies.Publish(status.Process{}, l.state)
		l.start()
		return l, nil
	})
	if err != nil {
		return nil, err
	}
	l := value.(*Store)
	l.mu.Lock()
	l.settings = s
	l.mu.Unlock()
	l.enter()
	return l, nil
}

func Release(key ID) error {
	_, err := pool.Delete(key)
	return err
}

// Destruct implements caddy.Destructor. When the process ends, requests that were cut
// off have not ended yet: it is left for the very last.
func (l *Store) Destruct() error {
	if caddy.Exiting() {
		registry.Lock()
		defer registry.Unlock()
		registry.atExit = append(registry.atExit, l)
		return nil
	}
	return l.Close()
}

// closeTimeout is how long the end of a ledger may take.
const closeTimeout = 3 * time.Second

// Close takes what was counted, writes everything, and closes the database. If that
// fails, the gateway's next ledger takes over what has not been written.
func (l *Store) Close() error {
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
			next.takeOver(rest, l.node)
		} else {
			l.logger.Error("bandwidth could not be written before the end and is lost",
				zap.String("store", l.db.name), zap.Int64("bytes", rest.total()), zap.Error(err))
		}
	}
	if l.db.isOpen() && err == nil {
		err = l.deleteOwnRows(ctx)
	}
	if l.publish != nil {
		l.publish()
	}
	if l.release != nil {
		err = errors.Join(err, l.release())
	}
	return errors.Join(err, l.db.Close())
}

func (l *Store) hasRows() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writing != nil || l.pending.len() > 0
}

// takeAll removes what has not been written.
func (l *Store) takeAll() *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.pending
	if l.writing != nil {
		all.merge(l.writing)
	}
	l.pending, l.writing = newBatch(), nil
	return all
}

// takeOver takes over what another ledger of the same gateway could not write. Its own
// rows become those of this one's node.
func (l *Store) takeOver(rest *batch, node string) {
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

// deleteOwnRows removes what only this ledger needs in the database.
func (l *Store) deleteOwnRows(ctx context.Context) error {
	return l.db.Tx(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM leases WHERE holder = ?", l.writer); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "DELETE FROM flushes WHERE writer = ?", l.writer)
		return err
	})
}
