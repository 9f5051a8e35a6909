package store

import (
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/pause"
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/stats"
)

// recorder is the source of the bytes of a gateway: a *stats.Recorder.
type recorder interface {
	Drain(func(stats.Interval))
}

// Store is the usage store of one gateway. It takes the bytes that the gateway counts every
// second, sums them by minute, and writes them to a database every few seconds. It outlives
// reloads.
//
// While the database is down, it keeps the bytes in memory.
//
// All methods are safe for concurrent use.
type Store struct {
	gateway  string // the name of the gateway
	node     string // its name in the column gateway
	writer   string // random and unique
	db       *DB
	recorder recorder
	now      func() time.Time
	logger   *zap.Logger

	mu           sync.Mutex
	pending      *batch // counted, not being written
	writing      *batch // the batch of number seq until it is written; nil if there is none
	seq          int64  // the number of the last batch that was begun
	settings     Settings
	marks        map[int64]int // how often each time is marked
	marksDue     time.Time     // when they are written again
	problem      string        // the error of the last write; empty if it succeeded
	problemSince time.Time     // when that began
	after        map[*subscriber]struct{}

	flushing sync.Mutex          // held to write: one batch after the other
	ids      map[seriesKey]int64 // known to the database; guarded by flushing

	stop    context.CancelFunc // nil unless it runs
	running sync.WaitGroup
	publish func()       // ends the publication of its health
	release func() error // releases the recorder
}

// Settings may change at a reload.
type Settings struct {
	FlushInterval time.Duration // between two flushes
	Retention     Retention
}

// Retention is how long rows are kept.
type Retention struct{ Minutes, Hours, Days time.Duration }

const (
	DefaultFlushInterval = 5 * time.Second
	MaxFlushInterval     = 10 * time.Second

	// How many rows are kept in memory while the database is away, before those of
	// minutes are merged into those of hours.
	maxPending = 100_000
)

var DefaultRetention = Retention{Minutes: 7 * 24 * time.Hour, Hours: 90 * 24 * time.Hour, Days: 1095 * 24 * time.Hour}

// New returns a store that runs no goroutines and has not opened its database.
func New(gateway, node string, at Address, m recorder, now func() time.Time, logger *zap.Logger) *Store {
	return &Store{
		gateway: gateway, node: node, writer: rand.Text(),
		db: newDB(at, now), recorder: m, now: now, logger: logger,
		pending:  newBatch(),
		settings: Settings{FlushInterval: DefaultFlushInterval, Retention: DefaultRetention},
		marks:    make(map[int64]int),
		after:    make(map[*subscriber]struct{}),
		ids:      make(map[seriesKey]int64),
	}
}

// Node returns the name of the gateway in the column `gateway` of its rows.
func (l *Store) Node() string { return l.node }

// DB returns the database. It is opened when it is first used.
func (l *Store) DB() *DB { return l.db }

// bound keeps the memory bounded. The caller holds l.mu.
func (l *Store) bound() {
	room := maxPending
	if l.writing != nil {
		room -= l.writing.len()
	}
	if l.pending.len() > room {
		l.pending.bound(room, l.now().Unix(), l.isMarked)
	}
}

// Health reports whether the database is reachable, and else the problem. Traffic is
// counted in both cases.
func (l *Store) Health() (ok bool, problem string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.problem == "", l.problem
}

// state returns the health of the database.
func (l *Store) state() status.Dependency {
	ok, problem := l.Health()
	return status.Dependency{Name: "bandwidth " + l.db.name, Up: ok, Error: problem}
}

// Collect takes what the gateway has counted since the last time, which is the second
// before, or a part of it.
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

// start starts the goroutines that collect at every second, and write at every flush
// interval.
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

// flushLoop begins after a second: a configuration that is only validated, or fails,
// does not come that far, and leaves no database behind.
func (l *Store) flushLoop(ctx context.Context) {
	delay, backoff := time.Second, time.Duration(0)
	for pause.For(ctx, delay) {
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

// Lease reports whether this store holds the named lease, which one of the stores that
// share a database holds at a time. It expires after ttl unless it is renewed by another
// call.
func (l *Store) Lease(ctx context.Context, name string, ttl time.Duration) (held bool, err error) {
	// The clocks of gateways need not agree: where there is a server, its own counts.
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
