package store

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/pause"
	"github.com/rgate/rgate/internal/shutdown"
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/stats"
)

// pool holds the stores of the process. They survive configuration reloads.
var pool = caddy.NewUsagePool()

// ID identifies a store. A gateway has one store, or several while a reload changes it.
type ID struct{ Gateway, URL, Node string }

// registry holds the stores of each gateway, the newest last. Only the newest store
// collects.
var registry = struct {
	sync.Mutex
	of     map[string][]*Store
	atExit []*Store // stores to close when the process exits
}{of: make(map[string][]*Store)}

// For returns the newest store of a gateway, or nil.
func For(gateway string) *Store {
	registry.Lock()
	defer registry.Unlock()
	if all := registry.of[gateway]; len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

func (l *Store) isCurrent() bool { return For(l.gateway) == l }

// enter makes l the current store of its gateway.
func (l *Store) enter() {
	registry.Lock()
	defer registry.Unlock()
	registry.of[l.gateway] = append(slices.DeleteFunc(registry.of[l.gateway], func(o *Store) bool { return o == l }), l)
}

// leave removes l from the registry. It returns the gateway's current store, if any.
// older reports whether that store is older than l, because l's configuration failed to
// load.
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

// registerExit registers functions that flush the stores when the process begins to shut
// down, and close them when it exits.
var registerExit = sync.OnceFunc(func() {
	shutdown.OnBegin(func() {
		registry.Lock()
		defer registry.Unlock()
		for _, all := range registry.of {
			pause.Wake(all[len(all)-1].wake)
		}
	})
	caddy.OnExit(func(context.Context) {
		registry.Lock()
		all := registry.atExit
		registry.atExit = nil
		registry.Unlock()
		var closing sync.WaitGroup
		for _, l := range all {
			closing.Go(func() { _ = l.Close() }) // Close logs lost bytes
		}
		closing.Wait()
	})
})

// Acquire returns the store of a gateway. The caller must call Release. The database is
// not opened.
func Acquire(key ID, at Address, s Settings) (*Store, error) {
	value, _, err := pool.LoadOrNew(key, func() (caddy.Destructor, error) {
		recorder, release, err := stats.HoldRecorder(key.Gateway)
		if err != nil {
			return nil, err
		}
		registerExit()
		// The store may outlive the configuration's logger.
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

// Release releases a store. The last release closes it.
func Release(key ID) error {
	_, err := pool.Delete(key)
	return err
}

// Destruct implements caddy.Destructor. On process exit, the store is closed last because
// requests may still be running.
func (l *Store) Destruct() error {
	if caddy.Exiting() {
		registry.Lock()
		defer registry.Unlock()
		registry.atExit = append(registry.atExit, l)
		return nil
	}
	return l.Close()
}

// closeTimeout is the maximum duration of the database writes in Close.
const closeTimeout = 3 * time.Second

// Close flushes all rows and closes the database. If the flush fails, the gateway's next
// store takes over the rows.
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
	case older: // the configuration of l failed to load
	case l.hasRows() || l.db.isOpen():
		err = l.Flush(ctx)
	}
	if rest := l.takeAll(); rest.len() > 0 {
		if next != nil {
			next.takeOver(rest, l.node)
		} else {
			l.logger.Error("writing bandwidth before closing the store failed: bytes are lost",
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

// takeAll removes and returns the rows that have not been written.
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

// takeOver adds rows that another store of the gateway could not write. Rows of the other
// store's node are renamed to l's node.
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

// deleteOwnRows deletes the store's leases and its batch number.
func (l *Store) deleteOwnRows(ctx context.Context) error {
	return l.db.Tx(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM leases WHERE holder = ?", l.writer); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "DELETE FROM flushes WHERE writer = ?", l.writer)
		return err
	})
}
