package store

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// How often a ledger tells what it has marked.
	markInterval = time.Hour

	// How long the database believes it without hearing of it again. Whoever is
	// restarted, or away for a weekend, finds what it needs.
	markLife = 7 * 24 * time.Hour
)

// Mark keeps the rows that a sum from a time on needs, however old they are, such as
// the minutes around the begin of a quota's period. The function that it returns ends
// it.
func (l *Ledger) Mark(t time.Time) (unmark func()) {
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
func (l *Ledger) isMarked(at, unit int64) bool {
	for mark := range l.marks {
		if mark >= at && mark < at+unit {
			return true
		}
	}
	return false
}

// writeMarks tells whoever deletes rows from the database what is marked, every now
// and then.
func (l *Ledger) writeMarks(ctx context.Context) error {
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
