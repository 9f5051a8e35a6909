package notify

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/rgate/rgate/bandwidth/store"
)

// Allocation identifies one allocation of a quota: a direction in a period, and a
// consumer if consumers have separate allocations.
type Allocation struct {
	Quota, Consumer, Direction string
	Start                      int64 // start of the period in Unix seconds
}

// Event records that a threshold has been reached.
type Event struct {
	At         time.Time
	Deliveries []DeliveryState
}

// DeliveryState is the delivery state of a message in one channel.
type DeliveryState struct {
	Channel  string `json:"channel"` // `mail`, `webhook`
	State    string `json:"state"`   // `pending`, `sent`, `failed`
	Attempts int    `json:"attempts"`
	Error    string `json:"error,omitempty"` // error of the last attempt
}

// Events holds the events of the current periods, by allocation and threshold in percent.
type Events map[Allocation]map[int]Event

// ReadEvents returns the events of the periods that end after now, with the states of
// their deliveries.
func ReadEvents(ctx context.Context, db *store.DB, now time.Time) (Events, error) {
	rows, err := db.Query(ctx, `SELECT e.quota, e.consumer, e.direction, e.starts_at, e.threshold, e.crossed_at,
		COALESCE(o.channel, ''), COALESCE(o.state, ''), COALESCE(o.attempts, 0), COALESCE(o.error, '')
		FROM quota_events e LEFT JOIN outbox o ON o.message = e.message
		WHERE e.ends_at > ? ORDER BY e.threshold, o.channel`, now.Unix())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	events := make(Events)
	for rows.Next() {
		var of Allocation
		var threshold int
		var at int64
		var d DeliveryState
		if err := rows.Scan(&of.Quota, &of.Consumer, &of.Direction, &of.Start, &threshold, &at, &d.Channel, &d.State, &d.Attempts, &d.Error); err != nil {
			return nil, err
		}
		if events[of] == nil {
			events[of] = make(map[int]Event)
		}
		e := events[of][threshold]
		e.At = time.Unix(at, 0)
		if d.Channel != "" {
			e.Deliveries = append(e.Deliveries, d)
		}
		events[of][threshold] = e
	}
	return events, rows.Err()
}

// Record stores the thresholds a.Crossed as reached, and adds the alert to the outbox for
// each channel. It sets a.ID. queued is false if the highest threshold or a higher one was
// recorded before.
func (n *Notifier) Record(ctx context.Context, db *store.DB, of Allocation, a *Alert) (queued bool, err error) {
	channels := n.channels().Names()
	err = db.Tx(ctx, func(tx *store.Tx) error {
		origin, err := originOf(ctx, tx)
		if err != nil {
			return err
		}
		highest := a.Crossed[len(a.Crossed)-1]
		a.ID = alertID(origin, of, highest)
		// Insert in descending order on every gateway, so that concurrent transactions
		// lock rows in the same order.
		first := false
		for i := len(a.Crossed) - 1; i >= 0; i-- {
			added, err := addEvent(ctx, tx, of, a.Crossed[i], a.Period.End, a.At, a.ID)
			if err != nil {
				return err
			}
			first = first || added && a.Crossed[i] == highest
		}
		if !first {
			return nil
		}
		// If the limit was raised, a message about a higher threshold may already have
		// been sent.
		var most int
		err = tx.QueryRow(ctx, "SELECT MAX(threshold) FROM quota_events WHERE quota = ? AND consumer = ? AND starts_at = ? AND direction = ?",
			of.Quota, of.Consumer, of.Start, of.Direction).Scan(&most)
		if err != nil || most > highest {
			return err
		}
		queued = true
		for _, channel := range channels {
			if err := enqueue(ctx, tx, a, channel); err != nil {
				return err
			}
		}
		return nil
	})
	return queued, err
}

// originOf returns the random ID of the database. It makes message IDs unique across
// databases.
func originOf(ctx context.Context, tx *store.Tx) (id string, err error) {
	if _, err := tx.Exec(ctx, "INSERT INTO quota_origin (one, id) VALUES (1, ?) ON CONFLICT DO NOTHING", rand.Text()); err != nil {
		return "", err
	}
	return id, tx.QueryRow(ctx, "SELECT id FROM quota_origin WHERE one = 1").Scan(&id)
}

// alertID returns the ID of the message about a threshold. It is the same on every
// gateway and in every attempt.
func alertID(origin string, of Allocation, threshold int) string {
	digest := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%s\x00%d\x00%d", origin, of.Quota, of.Consumer, of.Direction, of.Start, threshold))
	return hex.EncodeToString(digest[:16])
}

func addEvent(ctx context.Context, tx *store.Tx, of Allocation, threshold int, end, now time.Time, message string) (added bool, err error) {
	result, err := tx.Exec(ctx, `INSERT INTO quota_events (quota, consumer, starts_at, direction, threshold, ends_at, crossed_at, message)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`, of.Quota, of.Consumer, of.Start, of.Direction, threshold, end.Unix(), now.Unix(), message)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n == 1, err
}

// deleteOld deletes events whose period ended before a time, and messages created before
// it.
func deleteOld(ctx context.Context, db *store.DB, before time.Time) error {
	return db.Tx(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM quota_events WHERE ends_at < ?", before.Unix()); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "DELETE FROM outbox WHERE created_at < ?", before.Unix())
		return err
	})
}
