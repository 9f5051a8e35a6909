package store

import (
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/pause"
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/stats"
)

// recorder provides the bytes that a gateway counted. *stats.Recorder implements it.
type recorder interface {
	Drain(func(stats.Interval))
}

// Store is the usage store of one gateway. It collects the gateway's byte counts every
// second, sums them by minute, and flushes them to a database every few seconds. It
// survives configuration reloads.
//
// While the database is unavailable, rows stay in memory.
//
// All methods are safe for concurrent use.
type Store struct {
	gateway  string // the name of the gateway
	node     string // value of the gateway column in its rows
	writer   string // random ID of this writer
	db       *DB
	recorder recorder
	now      func() time.Time
	logger   *zap.Logger

	mu           sync.Mutex
	pending      *batch // collected rows that are not being written
	writing      *batch // batch number seq, until it is written; nil if there is none
	seq          int64  // number of the last batch
	settings     Settings
	marks        map[int64]int // number of marks per time
	marksDue     time.Time     // time of the next write of marks
	problem      string        // error of the last flush; empty if it succeeded
	problemSince time.Time     // time of the first failed flush
	after        map[*subscriber]struct{}

	flushing sync.Mutex          // serializes flushes
	ids      map[seriesKey]int64 // series IDs in the database. Guarded by flushing.

	wake    chan struct{}      // triggers a flush
	stop    context.CancelFunc // stops the goroutines; nil if they are not running
	running sync.WaitGroup
	publish func()       // unpublishes the health status
	release func() error // releases the recorder
}

// Settings are the settings that a configuration reload may change.
type Settings struct {
	FlushInterval time.Duration // time between flushes
	Retention     Retention
}

// Retention is the duration for which rows of each length are kept.
type Retention struct{ Minutes, Hours, Days time.Duration }

const (
	DefaultFlushInterval = 5 * time.Second
	MaxFlushInterval     = 10 * time.Second

	// The maximum number of rows in memory. Above it, minute rows are merged into hour
	// rows, then into day rows.
	maxPending = 100_000
)

// DefaultRetention is the retention of rows if none is configured.
var DefaultRetention = Retention{Minutes: 7 * 24 * time.Hour, Hours: 90 * 24 * time.Hour, Days: 1095 * 24 * time.Hour}

// New returns a store without running goroutines. The database is opened on first use.
func New(gateway, node string, at Address, m recorder, now func() time.Time, logger *zap.Logger) *Store {
	return &Store{
		gateway: gateway, node: node, writer: rand.Text(),
		db: newDB(at, now), recorder: m, now: now, logger: logger,
		pending:  newBatch(),
		settings: Settings{FlushInterval: DefaultFlushInterval, Retention: DefaultRetention},
		marks:    make(map[int64]int),
		after:    make(map[*subscriber]struct{}),
		ids:      make(map[seriesKey]int64),
		wake:     make(chan struct{}, 1),
	}
}

// Node returns the value of the gateway column in the store's rows.
func (l *Store) Node() string { return l.node }

// DB returns the database, which is opened on first use.
func (l *Store) DB() *DB { return l.db }

// bound merges pending rows if there are more than maxPending. The caller holds l.mu.
func (l *Store) bound() {
	room := maxPending
	if l.writing != nil {
		room -= l.writing.len()
	}
	if l.pending.len() > room {
		l.pending.bound(room, l.now().Unix(), l.isMarked)
	}
}

// Health reports whether the last flush succeeded, and returns its error message
// otherwise. Traffic is counted in both cases.
func (l *Store) Health() (ok bool, problem string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.problem == "", l.problem
}

// state returns the database's health for the gateway's health report.
func (l *Store) state() status.Dependency {
	ok, problem := l.Health()
	return status.Dependency{Name: "bandwidth " + l.db.name, Up: ok, Error: problem}
}

// Collect adds the bytes and requests since the last call to the pending rows. They count
// for the minute half a second ago, since collection runs just after each second.
func (l *Store) Collect() {
	at := floorTo(l.now().Add(-500*time.Millisecond).Unix(), minute)
	fresh := newBatch()
	l.recorder.Drain(func(one stats.Interval) {
		key := rowKey{at, cleanKey(l.node, Key{Service: one.Backend, Route: one.Route, Consumer: one.Consumer})}
		fresh.addBytes(key, Bytes{
			Ingress: int64(one.Traffic.IngressBody), Egress: int64(one.Traffic.EgressBody),
			IngressHeaders: int64(one.Traffic.IngressHeader), EgressHeaders: int64(one.Traffic.EgressHeader),
		})
		if one.Requests > 0 {
			f := requestCounts{requests: one.Requests, errors: one.Errors, seconds: one.Seconds}
			if one.Sketch != nil {
				f.sketches = [][]byte{one.Sketch}
			}
			fresh.addRequests(key, f)
		}
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending.merge(fresh)
	l.bound()
}

const (
	minBackoff = 500 * time.Millisecond
	maxBackoff = 10 * time.Second
)

// start starts the goroutines that collect, flush and prune.
func (l *Store) start() {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.running.Go(func() {
		for pause.For(ctx, untilNextSecond(l.now())) {
			if l.isCurrent() {
				l.Collect()
			}
		}
	})
	l.running.Go(func() { l.flushLoop(ctx) })
	l.running.Go(func() { l.pruneLoop(ctx) })
}

// flushLoop flushes periodically, with backoff after errors. The first flush is delayed
// by a second, so that a configuration that fails to load creates no database.
func (l *Store) flushLoop(ctx context.Context) {
	delay, backoff := time.Second, time.Duration(0)
	for pause.UntilWoken(ctx, l.wake, 0, delay) {
		if caddy.Exiting() && l.isCurrent() {
			l.Collect() // the end of the process may come before the next collection
		}
		if err := l.Flush(ctx); err != nil {
			backoff = min(max(2*backoff, minBackoff), maxBackoff)
			delay = backoff/2 + mathrand.N(backoff/2)
			continue
		}
		backoff = 0
		l.mu.Lock()
		delay = l.settings.FlushInterval
		l.mu.Unlock()
	}
}

func untilNextSecond(now time.Time) time.Duration {
	return now.Truncate(time.Second).Add(time.Second).Sub(now)
}

// Lease acquires or renews the named lease, and reports whether this store holds it. Of
// the stores that share a database, only one holds the lease. The lease expires after ttl.
func (l *Store) Lease(ctx context.Context, name string, ttl time.Duration) (held bool, err error) {
	// Clocks of gateways may differ, so the database server's clock is used if there is
	// one.
	now, args := "?", []any{name, l.writer}
	if l.db.nowMillis != "" {
		now = l.db.nowMillis
	}
	clock := func() {
		if l.db.nowMillis == "" {
			args = append(args, l.now().UnixMilli())
		}
	}
	clock()
	args = append(args, max(ttl.Milliseconds(), 1))
	clock()
	result, err := l.db.Exec(ctx, "INSERT INTO leases (name, holder, expires) VALUES (?, ?, "+now+" + ?) "+
		"ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires = excluded.expires "+
		"WHERE leases.holder = excluded.holder OR leases.expires <= "+now, args...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}
