package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	sqlitedriver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/rgate/rgate/internal/pause"
)

// DB is a store's database. On first use, it is opened and migrated to the current
// schema. Statements use `?` for parameters.
//
// All methods are safe for concurrent use. SQLite has one write connection, so a function
// passed to Tx must only use its Tx.
type DB struct {
	Address
	now func() time.Time

	opened  atomic.Pointer[pools] // nil until opened
	opening chan struct{}         // semaphore of size 1 for opening and closing
	done    context.Context       // done after Close
	end     context.CancelFunc
}

// pools holds the connection pools of an open database.
type pools struct {
	write, read *sql.DB     // the same pool for PostgreSQL
	file        os.FileInfo // identifies the SQLite file
}

var errClosed = errors.New("the database has been closed")

// maxConnections is the maximum number of connections to PostgreSQL, and of read
// connections to SQLite.
const maxConnections = 4

func newDB(at Address, now func() time.Time) *DB {
	db := &DB{Address: at, now: now, opening: make(chan struct{}, 1)}
	db.done, db.end = context.WithCancel(context.Background())
	return db
}

// open returns the connection pools. On first use, it connects and migrates the database.
func (db *DB) open(ctx context.Context) (*pools, error) {
	if p := db.opened.Load(); p != nil {
		return p, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(db.done, cancel)()
	select {
	case db.opening <- struct{}{}:
		defer func() { <-db.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if p := db.opened.Load(); p != nil {
		return p, nil
	}
	if db.done.Err() != nil {
		return nil, errClosed
	}
	p, err := db.connect()
	if err != nil {
		return nil, err
	}
	err = db.migrate(ctx, p.write)
	for isBusy(err) && pause.For(ctx, 20*time.Millisecond) {
		err = db.migrate(ctx, p.write)
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	if db.dialect == sqlite {
		if p.file, err = os.Stat(db.Path); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	db.opened.Store(p)
	return p, nil
}

func (db *DB) connect() (*pools, error) {
	if db.dialect == postgres {
		pool := stdlib.OpenDB(*db.pg)
		pool.SetMaxOpenConns(maxConnections)
		pool.SetConnMaxIdleTime(time.Minute)
		return &pools{write: pool, read: pool}, nil
	}
	if err := createFile(db.Path); err != nil {
		return nil, err
	}
	// In WAL mode, readers and the writer do not block each other. With a commit every
	// few seconds, synchronous=FULL is affordable.
	file := "file:" + (&url.URL{Path: db.Path}).EscapedPath() +
		"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=cache_size(-16000)"
	write, err := sql.Open("sqlite", file+"&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	read, err := sql.Open("sqlite", file+"&_pragma=query_only(1)")
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	write.SetMaxOpenConns(1)
	read.SetMaxOpenConns(maxConnections)
	read.SetConnMaxIdleTime(time.Minute)
	return &pools{write: write, read: read}, nil
}

// isBusy reports whether err is SQLITE_BUSY. SQLite may ignore busy_timeout when two
// connections create a database at the same time.
func isBusy(err error) bool {
	var of *sqlitedriver.Error
	return errors.As(err, &of) && of.Code()&0xff == sqlite3.SQLITE_BUSY
}

func (p *pools) close() error {
	if p.read == p.write {
		return p.write.Close()
	}
	return errors.Join(p.read.Close(), p.write.Close())
}

// closeRemoved closes the connections if the SQLite file was removed or replaced: writes
// to the old file are lost. The next use opens the database again.
func (db *DB) closeRemoved() (gone bool) {
	p := db.opened.Load()
	if p == nil || db.dialect != sqlite {
		return false
	}
	if now, err := os.Stat(db.Path); err == nil && os.SameFile(now, p.file) {
		return false
	}
	db.opening <- struct{}{} // prevents opening the new file before the connections are closed
	defer func() { <-db.opening }()
	if db.opened.CompareAndSwap(p, nil) {
		_ = p.close() // the file is removed
	}
	return true
}

// Close closes the connections.
func (db *DB) Close() error {
	db.end()
	db.opening <- struct{}{}
	defer func() { <-db.opening }()
	if p := db.opened.Swap(nil); p != nil {
		return p.close()
	}
	return nil
}

// createFile creates the database file if it is missing. Only its owner can read it,
// because it contains consumer names.
func createFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("creating the directory of the store: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("creating the file of the store: %w", err)
	}
	return f.Close()
}

// isOpen reports whether the database is open.
func (db *DB) isOpen() bool { return db.opened.Load() != nil }

// Exec executes a statement that may write.
func (db *DB) Exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	p, err := db.open(ctx)
	if err != nil {
		return nil, err
	}
	return p.write.ExecContext(ctx, db.rewrite(query), args...)
}

// Query executes a read-only statement.
func (db *DB) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	p, err := db.open(ctx)
	if err != nil {
		return nil, err
	}
	return p.read.QueryContext(ctx, db.rewrite(query), args...)
}

// QueryRow executes a read-only statement that returns at most one row.
func (db *DB) QueryRow(ctx context.Context, query string, args ...any) oneRow {
	p, err := db.open(ctx)
	if err != nil {
		return oneRow{err: err}
	}
	return oneRow{row: p.read.QueryRowContext(ctx, db.rewrite(query), args...)}
}

// oneRow is the result of QueryRow.
type oneRow struct {
	row *sql.Row
	err error
}

// Scan copies the columns. It returns sql.ErrNoRows if there is no row.
func (r oneRow) Scan(to ...any) error {
	if r.err != nil {
		return r.err
	}
	return r.row.Scan(to...)
}

// Tx is a database transaction.
type Tx struct {
	tx *sql.Tx
	*dialect
}

// Exec executes a statement that may write.
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return tx.tx.ExecContext(ctx, tx.rewrite(query), args...)
}

// Query executes a statement that returns rows.
func (tx *Tx) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return tx.tx.QueryContext(ctx, tx.rewrite(query), args...)
}

// QueryRow executes a statement that returns at most one row.
func (tx *Tx) QueryRow(ctx context.Context, query string, args ...any) oneRow {
	return oneRow{row: tx.tx.QueryRowContext(ctx, tx.rewrite(query), args...)}
}

// Tx calls f in a transaction, and rolls back if f returns an error. SQLite runs one
// write transaction at a time; PostgreSQL uses READ COMMITTED. If COMMIT fails, the
// transaction may still have taken effect.
func (db *DB) Tx(ctx context.Context, f func(*Tx) error) error {
	p, err := db.open(ctx)
	if err != nil {
		return err
	}
	return db.transact(ctx, p.write, nil, f)
}

// snapshot calls f in a read-only transaction with a consistent snapshot of the database.
func (db *DB) snapshot(ctx context.Context, f func(*Tx) error) error {
	p, err := db.open(ctx)
	if err != nil {
		return err
	}
	options := &sql.TxOptions{ReadOnly: true}
	if db.dialect == postgres {
		options.Isolation = sql.LevelRepeatableRead
	}
	return db.transact(ctx, p.read, options, f)
}

func (db *DB) transact(ctx context.Context, pool *sql.DB, options *sql.TxOptions, f func(*Tx) error) error {
	tx, err := pool.BeginTx(ctx, options)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // no-op after a commit
	if err := f(&Tx{tx, db.dialect}); err != nil {
		return err
	}
	return tx.Commit()
}
