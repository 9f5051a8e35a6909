package store

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/pause"
)

const (
	// The interval at which a store writes its marks.
	markInterval = time.Hour

	// The lifetime of a mark that is not renewed. It is long enough for a gateway that is
	// stopped over a weekend.
	markLife = 7 * 24 * time.Hour
)

// Mark prevents the deletion of rows needed for an exact sum since t, such as the minutes
// around the start of a quota period. unmark removes the mark.
func (l *Store) Mark(t time.Time) (unmark func()) {
	at := floorTo(t.Unix(), minute)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks[at]++
	l.marksDue = time.Time{} // write it on the next flush
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.marks[at]--; l.marks[at] == 0 {
			delete(l.marks, at)
		}
	})
}

// isMarked reports whether a mark is in the unit that starts at at. The caller holds
// l.mu.
func (l *Store) isMarked(at, unit int64) bool {
	for mark := range l.marks {
		if mark >= at && mark < at+unit {
			return true
		}
	}
	return false
}

// writeMarks writes the marks to the database every markInterval. The gateway that prunes
// reads them.
func (l *Store) writeMarks(ctx context.Context) error {
	now := l.now()
	l.mu.Lock()
	if len(l.marks) == 0 || now.Before(l.marksDue) {
		l.mu.Unlock()
		return nil
	}
	marks := slices.Sorted(maps.Keys(l.marks))
	l.marksDue = now.Add(markInterval)
	l.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	err := l.db.Tx(ctx, func(tx *Tx) error {
		for _, at := range marks {
			if _, err := tx.Exec(ctx, `INSERT INTO marks (at, seen) VALUES (?, ?)
				ON CONFLICT (at) DO UPDATE SET seen = excluded.seen WHERE marks.seen < excluded.seen`, at, now.Unix()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		l.mu.Lock()
		l.marksDue = time.Time{}
		l.mu.Unlock()
	}
	return err
}

const (
	pruneInterval = time.Hour

	// Minute rows of requests are larger because of their sketches, so they are kept for
	// less time.
	maxRequestMinutes = 48 * time.Hour

	// The retention of the batch number of a crashed process.
	writerLife = 30 * 24 * time.Hour
)

// deletion describes the rows of a table to delete.
type deletion struct {
	table  string
	mark   string // name of the watermark; empty if there are no coarser rows
	before int64
	spare  int64 // length of the range kept around a mark
	chunk  int64 // length of the range deleted per transaction
}

// deletionsFor returns the deletions for a retention, aligned to the next coarser rows.
func deletionsFor(kept Retention, now time.Time) []deletion {
	before := func(age time.Duration, unit int64) int64 { return floorTo(now.Add(-age).Unix(), unit) }
	minutes, hours, days := before(kept.Minutes, hour), before(kept.Hours, day), before(kept.Days, day)
	return []deletion{
		{"bytes_minute", "minutes", minutes, hour, 10 * minute},
		{"answers_minute", "answers", before(min(kept.Minutes, maxRequestMinutes), hour), hour, 10 * minute},
		{"bytes_hour", "hours", hours, day, hour},
		{"answers_hour", "hours", hours, day, hour},
		{"bytes_day", "", days, day, day},
		{"answers_day", "", days, day, day},
	}
}

// pruneLoop deletes expired rows every hour. A lease ensures that only one of the gateways
// on a database does so.
func (l *Store) pruneLoop(ctx context.Context) {
	for pause.For(ctx, time.Minute) { // wait until marks are written and startup is done
		held, err := l.Lease(ctx, "prune", 2*pruneInterval)
		if held {
			err = l.prune(ctx)
		}
		if err != nil && ctx.Err() == nil {
			l.logger.Debug("deleting expired bandwidth rows failed, retrying later", zap.Error(err))
			continue
		}
		if !pause.For(ctx, pruneInterval) {
			return
		}
	}
}

// prune deletes expired rows in short transactions.
func (l *Store) prune(ctx context.Context) error {
	now := l.now()
	l.mu.Lock()
	kept := l.settings.Retention
	l.mu.Unlock()
	if _, err := l.db.Exec(ctx, "DELETE FROM marks WHERE seen < ?", now.Add(-markLife).Unix()); err != nil {
		return err
	}
	if _, err := l.db.Exec(ctx, "DELETE FROM flushes WHERE at < ?", now.Add(-writerLife).Unix()); err != nil {
		return err
	}
	marks, err := l.readMarks(ctx)
	if err != nil {
		return err
	}
	for _, c := range deletionsFor(kept, now) {
		if err := l.pruneTable(ctx, c, marks); err != nil {
			return err
		}
	}
	return nil
}

// readMarks returns the marks of all gateways on the database.
func (l *Store) readMarks(ctx context.Context) (marks []int64, err error) {
	rows, err := l.db.Query(ctx, "SELECT at FROM marks")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var at int64
		if err := rows.Scan(&at); err != nil {
			return nil, err
		}
		marks = append(marks, at)
	}
	return marks, rows.Err()
}

func (l *Store) pruneTable(ctx context.Context, c deletion, marks []int64) error {
	spared := make(map[int64]bool)
	for _, at := range marks {
		spared[floorTo(at, c.spare)] = true
	}
	// Write the watermark before deleting, so that readers do not use the rows.
	if c.mark != "" {
		if _, err := l.db.Exec(ctx, `INSERT INTO pruned (name, before) VALUES (?, ?)
			ON CONFLICT (name) DO UPDATE SET before = excluded.before WHERE pruned.before < excluded.before`, c.mark, c.before); err != nil {
			return err
		}
	}
	for cursor := int64(0); ; {
		var next sql.NullInt64
		if err := l.db.QueryRow(ctx, "SELECT MIN(at) FROM "+c.table+" WHERE at >= ? AND at < ?", cursor, c.before).Scan(&next); err != nil || !next.Valid {
			return err
		}
		if whole := floorTo(next.Int64, c.spare); c.mark != "" && spared[whole] {
			cursor = whole + c.spare
			continue
		}
		cursor = floorTo(next.Int64, c.chunk) + c.chunk
		if _, err := l.db.Exec(ctx, "DELETE FROM "+c.table+" WHERE at >= ? AND at < ?", next.Int64, min(cursor, c.before)); err != nil {
			return err
		}
	}
}
