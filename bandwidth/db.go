package bandwidth

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // the engine
)

// DB is the database of a ledger. It is opened, and its schema brought up to date,
// when it is first used. Statements are written with `?` for parameters.
//
// All methods are safe for concurrent use. SQLite has one connection that writes: in
// the function of Tx, nothing but the Tx may be used.
type DB struct {
	address
	now func() time.Time

	mu     sync.Mutex
	ready  bool    // guarded by mu
	closed bool    // guarded by mu
	write  *sql.DB // nil until opened; guarded by mu until ready
	read   *sql.DB // the same as write in PostgreSQL
}

var errClosed = errors.New("the database has been closed")

// maxConnections bounds those to PostgreSQL, and those that read SQLite.
const maxConnections = 4

func newDB(at address, now func() time.Time) *DB { return &DB{address: at, now: now} }

// open makes the database ready, or says why it is not.
func (db *DB) open(ctx context.Context) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	switch {
	case db.closed:
		return errClosed
	case db.ready:
		return nil
	}
	if db.write == nil {
		if err := db.connect(); err != nil {
			return err
		}
	}
	if err := db.migrate(ctx); err != nil {
		return err
	}
	db.ready = true
	return nil
}

func (db *DB) connect() error {
	if db.dialect == postgres {
		db.write = stdlib.OpenDB(*db.pg)
		db.write.SetMaxOpenConns(maxConnections)
		db.write.SetConnMaxIdleTime(time.Minute)
		db.read = db.write
		return nil
	}
	if err := createFile(db.path); err != nil {
		return err
	}
	// In WAL, readers and the writer do not wait for each other. A commit every few
	// seconds can afford to wait for the disk.
	const options = "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=cache_size(-16000)"
	file := "file:" + (&url.URL{Path: db.path}).EscapedPath() + options
	var err error
	if db.write, err = sql.Open("sqlite", file+"&_txlock=immediate"); err != nil {
		return err
	}
	if db.read, err = sql.Open("sqlite", file+"&_pragma=query_only(1)"); err != nil {
		return errors.Join(err, db.write.Close())
	}
	db.write.SetMaxOpenConns(1)
	db.read.SetMaxOpenConns(maxConnections)
	db.read.SetConnMaxIdleTime(time.Minute)
	return nil
}

// createFile makes the file of the database if need be, for the eyes of its user: it
// has the names of consumers in it.
func createFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("making the folder of the store: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("making the file of the store: %w", err)
	}
	return f.Close()
}

// Close closes the connections.
func (db *DB) Close() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.closed = true
	if db.write == nil {
		return nil
	}
	err := db.write.Close()
	if db.read != db.write {
		err = errors.Join(db.read.Close(), err)
	}
	return err
}

// isOpen reports whether it has been opened.
func (db *DB) isOpen() bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.ready && !db.closed
}

// Exec runs a statement that changes something.
func (db *DB) Exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if err := db.open(ctx); err != nil {
		return nil, err
	}
	return db.write.ExecContext(ctx, db.rewrite(query), args...)
}

// Query runs a statement that only reads.
func (db *DB) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := db.open(ctx); err != nil {
		return nil, err
	}
	return db.read.QueryContext(ctx, db.rewrite(query), args...)
}

// QueryRow runs a statement that only reads, and returns at most one row.
func (db *DB) QueryRow(ctx context.Context, query string, args ...any) oneRow {
	if err := db.open(ctx); err != nil {
		return oneRow{err: err}
	}
	return oneRow{row: db.read.QueryRowContext(ctx, db.rewrite(query), args...)}
}

// oneRow is what QueryRow returns.
type oneRow struct {
	row *sql.Row
	err error
}

// Scan copies the columns. Its error is sql.ErrNoRows if there is no row.
func (r oneRow) Scan(to ...any) error {
	if r.err != nil {
		return r.err
	}
	return r.row.Scan(to...)
}

// Tx is a transaction that may write.
type Tx struct {
	tx *sql.Tx
	*dialect
}

// Exec runs a statement that changes something.
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return tx.tx.ExecContext(ctx, tx.rewrite(query), args...)
}

// Query runs a statement that returns rows.
func (tx *Tx) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return tx.tx.QueryContext(ctx, tx.rewrite(query), args...)
}

// QueryRow runs a statement that returns at most one row.
func (tx *Tx) QueryRow(ctx context.Context, query string, args ...any) oneRow {
	return oneRow{row: tx.tx.QueryRowContext(ctx, tx.rewrite(query), args...)}
}

// Tx calls f in a transaction, which is rolled back if f returns an error. It does
// not see half of what others do: SQLite lets one write at a time, and PostgreSQL
// reads what was committed (READ COMMITTED). If the error is one of the COMMIT, it may
// have taken effect all the same.
func (db *DB) Tx(ctx context.Context, f func(*Tx) error) error {
	if err := db.open(ctx); err != nil {
		return err
	}
	return db.transact(ctx, db.write, nil, f)
}

// snapshot calls f in a transaction that reads one state of the database.
func (db *DB) snapshot(ctx context.Context, f func(*Tx) error) error {
	if err := db.open(ctx); err != nil {
		return err
	}
	options := &sql.TxOptions{ReadOnly: true}
	if db.dialect == postgres {
		options.Isolation = sql.LevelRepeatableRead
	}
	return db.transact(ctx, db.read, options, f)
}

func (db *DB) transact(ctx context.Context, pool *sql.DB, options *sql.TxOptions, f func(*Tx) error) error {
	tx, err := pool.BeginTx(ctx, options)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // also if f panics; after a commit, it does nothing
	if err := f(&Tx{tx, db.dialect}); err != nil {
		return err
	}
	return tx.Commit()
}
