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

// DB is the database of a store. It is opened, and its schema brought up to date,
// when it is first used. Statements are written with `?` for parameters.
//
// All methods are safe for concurrent use. SQLite has one connection that writes: in
// the function of Tx, nothing but the Tx may be used.
type DB struct {
	Address
	now func() time.Time

	opened  atomic.Pointer[pools] // nil until it is open
	opening chan struct{}         // full while it is being opened or closed
	done    context.Context       // ends with the database
	end     context.CancelFunc
}

// pools are the connections to an open database.
type pools struct {
	write, read *sql.DB     // the same in PostgreSQL
	file        os.FileInfo // of SQLite
}

var errClosed = errors.New("the database has been closed")

// maxConnections bounds those to PostgreSQL, and those that read SQLite.
const maxConnections = 4

func newDB(at Address, now func() time.Time) *DB {
	db := &DB{Address: at, now: now, opening: make(chan struct{}, 1)}
	db.done, db.end = context.WithCancel(context.Background())
	return db
}

// open returns the connections of the database, which is made ready if need be.
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
	// In WAL, readers and the writer do not wait for each other. A commit every few
	// seconds can afford to wait for the disk.
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

// isBusy reports whether two have opened a new SQLite at once, the one of which that
// comes second is not made to wait.
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

// closeRemoved lets go of a file of SQLite that is not at its place any more: what is
// written to it is lost. The next one who needs the database opens it anew.
func (db *DB) closeRemoved() (gone bool) {
	p := db.opened.Load()
	if p == nil || db.dialect != sqlite {
		return false
	}
	if now, err := os.Stat(db.Path); err == nil && os.SameFile(now, p.file) {
		return false
	}
	db.opening <- struct{}{} // the next file must not be there before the connections are gone
	defer func() { <-db.opening }()
	if db.opened.CompareAndSwap(p, nil) {
		_ = p.close() // of a file that is gone
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

// isOpen reports whether it is open.
func (db *DB) isOpen() bool { return db.opened.Load() != nil }

// Exec runs a statement that changes something.
func (db *DB) Exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	p, err := db.open(ctx)
	if err != nil {
		return nil, err
	}
	return p.write.ExecContext(ctx, db.rewrite(query), args...)
}

// Query runs a statement that only reads.
func (db *DB) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	p, err := db.open(ctx)
	if err != nil {
		return nil, err
	}
	return p.read.QueryContext(ctx, db.rewrite(query), args...)
}

// QueryRow runs a statement that only reads, and returns at most one row.
func (db *DB) QueryRow(ctx context.Context, query string, args ...any) oneRow {
	p, err := db.open(ctx)
	if err != nil {
		return oneRow{err: err}
	}
	return oneRow{row: p.read.QueryRowContext(ctx, db.rewrite(query), args...)}
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
	p, err := db.open(ctx)
	if err != nil {
		return err
	}
	return db.transact(ctx, p.write, nil, f)
}

// snapshot calls f in a transaction that reads one state of the database.
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
	defer func() { _ = tx.Rollback() }() // also if f panics; after a commit, it does nothing
	if err := f(&Tx{tx, db.dialect}); err != nil {
		return err
	}
	return tx.Commit()
}
