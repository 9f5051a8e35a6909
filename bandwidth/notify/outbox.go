package notify

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/rgate/rgate/bandwidth/store"
)

// The states of a delivery.
const (
	deliveryPending = "pending"
	deliverySent    = "sent"
	deliveryFailed  = "failed"
)

// The minimum and maximum delay between delivery attempts.
const (
	firstRetry = time.Second
	lastRetry  = 15 * time.Minute
)

// retryDelay returns the delay after a number of failed attempts (at least 1):
// exponential backoff with jitter.
func retryDelay(failed int) time.Duration {
	longest := lastRetry
	if failed < 12 {
		longest = min(firstRetry<<failed, lastRetry)
	}
	return longest/2 + rand.N(longest/2)
}

// enqueue adds an alert to the outbox for one channel.
func enqueue(ctx context.Context, tx *store.Tx, a *Alert, channel string) error {
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	now := a.At.Unix()
	_, err = tx.Exec(ctx, `INSERT INTO outbox (message, channel, notice, created_at, state, attempts, attempted_at, next_at, leased_until, leased_by, delivered, error)
		VALUES (?, ?, ?, ?, ?, 0, 0, ?, 0, '', '[]', '') ON CONFLICT DO NOTHING`, a.ID, channel, string(text), now, deliveryPending, now)
	return err
}

// delivery is an outbox entry: a message for one channel.
type delivery struct {
	message, channel string
	alert            Alert
	created          int64
	attempts         int
	next             int64    // Unix time when it is due, or when another gateway's lease ends
	delivered        []string // recipients that already received the message
}

// pendingDeliveries returns unfinished deliveries for the given channels, the longest
// overdue first.
func pendingDeliveries(ctx context.Context, db *store.DB, channels []string, limit int) (all []delivery, err error) {
	if len(channels) == 0 {
		return nil, nil
	}
	args := []any{deliveryPending}
	for _, name := range channels {
		args = append(args, name)
	}
	rows, err := db.Query(ctx, `SELECT message, channel, notice, created_at, attempts, CASE WHEN leased_until > next_at THEN leased_until ELSE next_at END, delivered
		FROM outbox WHERE state = ? AND channel IN (?`+strings.Repeat(", ?", len(channels)-1)+`) ORDER BY 6, message, channel LIMIT ?`, append(args, limit)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var d delivery
		var text, delivered string
		if err := rows.Scan(&d.message, &d.channel, &text, &d.created, &d.attempts, &d.next, &delivered); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(text), &d.alert); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(delivered), &d.delivered); err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, rows.Err()
}

// claim leases a delivery to holder. It returns false if another gateway holds the lease
// or has finished the attempt.
func (d *delivery) claim(ctx context.Context, db *store.DB, holder string, now, until time.Time) (claimed bool, err error) {
	result, err := db.Exec(ctx, `UPDATE outbox SET leased_until = ?, leased_by = ?
		WHERE message = ? AND channel = ? AND state = ? AND attempts = ? AND next_at <= ? AND leased_until <= ?`,
		until.Unix(), holder, d.message, d.channel, deliveryPending, d.attempts, now.Unix(), now.Unix())
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n == 1, err
}

// finish stores the outcome of an attempt and ends the lease. It does nothing if holder
// has lost the lease.
func (d *delivery) finish(ctx context.Context, db *store.DB, holder, state, problem string, now, next time.Time) error {
	delivered, err := json.Marshal(append([]string{}, d.delivered...))
	if err != nil {
		return err
	}
	_, err = db.Exec(ctx, `UPDATE outbox SET state = ?, attempts = attempts + 1, attempted_at = ?, next_at = ?, leased_until = 0, leased_by = '', delivered = ?, error = ?
		WHERE message = ? AND channel = ? AND leased_by = ?`, state, now.Unix(), next.Unix(), string(delivered), problem, d.message, d.channel, holder)
	return err
}

// retryFailed sets failed deliveries of messages created since a time to pending. With
// hurry, pending deliveries become due immediately as well.
func retryFailed(ctx context.Context, db *store.DB, now, since time.Time, hurry bool) error {
	condition, args := "state = ?", []any{deliveryPending, now.Unix(), since.Unix(), deliveryFailed}
	if hurry {
		condition, args = "state IN (?, ?)", append(args, deliveryPending)
	}
	_, err := db.Exec(ctx, "UPDATE outbox SET state = ?, next_at = ? WHERE created_at >= ? AND "+condition, args...)
	return err
}

// lastProblems returns the error of each channel's last attempt since a time, on any
// gateway. The error is empty if the attempt succeeded.
func lastProblems(ctx context.Context, db *store.DB, since time.Time) (map[string]string, error) {
	rows, err := db.Query(ctx, "SELECT channel, error FROM outbox WHERE attempted_at >= ? ORDER BY attempted_at, message", since.Unix())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	last := make(map[string]string)
	for rows.Next() {
		var channel, problem string
		if err := rows.Scan(&channel, &problem); err != nil {
			return nil, err
		}
		last[channel] = problem
	}
	return last, rows.Err()
}
