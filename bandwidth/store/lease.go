package store

import (
	"context"
	"time"
)

// Lease reports whether this ledger may do what only one of those that share a
// database shall do. It holds for the time given, or until it is asked for again. If
// the holder is gone, another one gets it when that time has passed.
func (l *Ledger) Lease(ctx context.Context, name string, ttl time.Duration) (held bool, err error) {
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
