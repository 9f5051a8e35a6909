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
	// How often a store writes its marks.
	markInterval = time.Hour

	// How long a mark is valid without being renewed. A gateway that is restarted, or
	// stopped over a weekend, finds its rows.
	markLife = 7 * 24 * time.Hour
)

// Mark keeps the rows that a sum from a time on needs, however old they are, such as
// the minutes around the begin of a quota's period. The function that it returns ends
// it.
func (l *Store) Mark(t time.Time) (unmark func()) {
	at := floorTo(t.Unix(), minute)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks[at]++
	l.marksDue = time.Time{} // the database does not know of it
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.marks[at]--; l.marks[at] == 0 {
			delete(l.marks, at)
		}
	})
}

// isMarked reports whether there is a mark in the unit that begins at a time. The
// caller holds l.mu.
func (l *Store) isMarked(at, unit int64) bool {
	for mark := range l.marks {
		if mark >= at && mark < at+unit {
			return true
		}
	}
	return false
}

// writeMarks writes the marks to the database every markInterval, for the gateway that
// deletes rows.
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

	// Minutes of requests are kept for less long than those of bytes: they have a
	// sketch each.
	maxRequestMinutes = 48 * time.Hour

	// How long it is remembered what a process that has crashed wrote last.
	writerLife = 30 * 24 * time.Hour
)

// deletion says which rows of a table are to be deleted.
type deletion struct {
	table  string
	mark   string // the name of the watermark; empty: none, nothing is coarser
	before int64
	spare  int64 // the length of what is kept around a mark
	chunk  int64 // what is deleted at once
}

// deletionsFor are what a retention asks for at a time, in whole units of the next coarser
// rows.
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

// pruneLoop deletes rows that are not kept any more, once an hour. Of the gateways on
// a database, one does.
func (l *Store) pruneLoop(ctx context.Context) {
	for pause.For(ctx, time.Minute) { // until marks have been made, and all that is more urgent is done
		held, err := l.Lease(ctx, "prune", 2*pruneInterval)
		if held {
			err = l.prune(ctx)
		}
		if err != nil && ctx.Err() == nil {
			l.logger.Debug("old rows of bandwidth could not be deleted, this is tried again", zap.Error(err))
			continue
		}
		if !pause.For(ctx, pruneInterval) {
			return
		}
	}
}

// prune deletes old rows, in short transactions.
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

// readMarks reads what all gateways on the database have marked.
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
	// Later readers must not rely on the rows.
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
