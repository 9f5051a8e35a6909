package bandwidth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/rgate/rgate/bandwidth/store"
)

// The states of a delivery.
const (
	deliveryPending = "pending"
	deliverySent    = "sent"
	deliveryFailed  = "failed"
)

// eventOf tells what a threshold belongs to.
type eventOf struct {
	quota, consumer, direction string
	start                      int64
}

// event is that a threshold has been reached.
type event struct {
	at         time.Time
	deliveries []DeliveryState
}

// events are those of periods that are not over, by threshold.
type events map[eventOf]map[int]event

func (j *evaluated) event() eventOf {
	return eventOf{j.spec.key, j.Consumer, j.Direction, j.Period.Start.Unix()}
}

// thresholds says which of an allocation's thresholds have been reached.
func (e events) thresholds(j *evaluated) []ThresholdState {
	all := make([]ThresholdState, len(j.spec.thresholds))
	for i, percent := range j.spec.thresholds {
		all[i] = ThresholdState{Percent: percent, Deliveries: []DeliveryState{}}
		if known, ok := e[j.event()][percent]; ok {
			at := known.at.In(j.spec.zone)
			all[i].CrossedAt = &at
			all[i].Deliveries = append(all[i].Deliveries, known.deliveries...)
		}
	}
	return all
}

// readEvents reads what has been reached in periods that are not over, and how far the
// messages about it have come.
func readEvents(ctx context.Context, db *store.DB, now time.Time) (events, error) {
	rows, err := db.Query(ctx, `SELECT e.quota, e.consumer, e.direction, e.starts_at, e.threshold, e.crossed_at,
		COALESCE(o.channel, ''), COALESCE(o.state, ''), COALESCE(o.attempts, 0), COALESCE(o.error, '')
		FROM quota_events e LEFT JOIN outbox o ON o.message = e.message
		WHERE e.ends_at > ? ORDER BY e.threshold, o.channel`, now.Unix())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := make(events)
	for rows.Next() {
		var of eventOf
		var threshold int
		var at int64
		var d DeliveryState
		if err := rows.Scan(&of.quota, &of.consumer, &of.direction, &of.start, &threshold, &at, &d.Channel, &d.State, &d.Attempts, &d.Error); err != nil {
			return nil, err
		}
		if all[of] == nil {
			all[of] = make(map[int]event)
		}
		e := all[of][threshold]
		e.at = time.Unix(at, 0)
		if d.Channel != "" {
			e.deliveries = append(e.deliveries, d)
		}
		all[of][threshold] = e
	}
	return all, rows.Err()
}

// recordThresholds records thresholds that were newly reached, and puts one message about
// the highest of them into the outbox. If several gateways do so at once, one of them
// sends it.
func (a *quotaEvaluator) recordThresholds(ctx context.Context, l *store.Store, j *evaluated, known events, now time.Time) (told bool, err error) {
	reached := crossed(j.Used, j.Allocated, j.spec.thresholds)
	of := j.event()
	news := false
	for _, percent := range reached {
		_, noted := known[of][percent]
		news = news || !noted
	}
	if !news {
		return false, nil
	}
	channels := a.notifier.channels()
	err = l.DB().Tx(ctx, func(tx *store.Tx) error {
		origin, err := originOf(ctx, tx)
		if err != nil {
			return err
		}
		highest := reached[len(reached)-1]
		id := messageOf(origin, of, highest)
		// The highest first, on every gateway: two that mark the same at once then wait
		// for each other in one order.
		first := false
		for i := len(reached) - 1; i >= 0; i-- {
			added, err := addEvent(ctx, tx, of, reached[i], j.Period.End, now, id)
			if err != nil {
				return err
			}
			first = first || added && reached[i] == highest
		}
		if !first {
			return nil
		}
		// After a quota has been raised, more than that may have been told already.
		var most int
		err = tx.QueryRow(ctx, "SELECT MAX(threshold) FROM quota_events WHERE quota = ? AND consumer = ? AND starts_at = ? AND direction = ?",
			of.quota, of.consumer, of.start, of.direction).Scan(&most)
		if err != nil || most > highest {
			return err
		}
		told = true
		n := j.alert(id, a.gateway, reached, now.In(j.spec.zone).Truncate(time.Second))
		for _, channel := range channels.names() {
			if err := post(ctx, tx, &n, channel, now); err != nil {
				return err
			}
		}
		return nil
	})
	return told, err
}

// originOf returns what tells the messages of a database from those of others.
func originOf(ctx context.Context, tx *store.Tx) (id string, err error) {
	if _, err := tx.Exec(ctx, "INSERT INTO quota_origin (one, id) VALUES (1, ?) ON CONFLICT DO NOTHING", rand.Text()); err != nil {
		return "", err
	}
	return id, tx.QueryRow(ctx, "SELECT id FROM quota_origin WHERE one = 1").Scan(&id)
}

// messageOf is what the message about a threshold is called, whoever sends it and how
// often.
func messageOf(origin string, of eventOf, threshold int) string {
	digest := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%s\x00%d\x00%d", origin, of.quota, of.consumer, of.direction, of.start, threshold))
	return hex.EncodeToString(digest[:16])
}

func addEvent(ctx context.Context, tx *store.Tx, of eventOf, threshold int, end, now time.Time, message string) (added bool, err error) {
	result, err := tx.Exec(ctx, `INSERT INTO quota_events (quota, consumer, starts_at, direction, threshold, ends_at, crossed_at, message)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`, of.quota, of.consumer, of.start, of.direction, threshold, end.Unix(), now.Unix(), message)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n == 1, err
}

// post puts a message into the outbox.
func post(ctx context.Context, tx *store.Tx, n *alert, channel string, now time.Time) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO outbox (message, channel, notice, created_at, state, attempts, attempted_at, next_at, leased_until, leased_by, delivered, error)
		VALUES (?, ?, ?, ?, ?, 0, 0, ?, 0, '', '[]', '') ON CONFLICT DO NOTHING`, n.ID, channel, string(text), now.Unix(), deliveryPending, now.Unix())
	return err
}

// delivery is a message that is to be delivered in one way.
type delivery struct {
	message, channel string
	alert            alert
	created          int64
	attempts         int
	next             int64 // when it may be tried, unless it is another gateway's until later
	delivered        []string
}

// pendingDeliveries lists the messages that have not been delivered, the ones that wait the
// longest first.
func pendingDeliveries(ctx context.Context, db *store.DB, limit int) (all []delivery, err error) {
	rows, err := db.Query(ctx, `SELECT message, channel, notice, created_at, attempts, CASE WHEN leased_until > next_at THEN leased_until ELSE next_at END, delivered
		FROM outbox WHERE state = ? ORDER BY 6, message, channel LIMIT ?`, deliveryPending, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var l delivery
		var text, delivered string
		if err := rows.Scan(&l.message, &l.channel, &text, &l.created, &l.attempts, &l.next, &delivered); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(text), &l.alert); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(delivered), &l.delivered); err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, rows.Err()
}

// claim makes a message this gateway's to deliver until a time. It is not, if another
// one was faster.
func (l *delivery) claim(ctx context.Context, db *store.DB, holder string, now, until time.Time) (ours bool, err error) {
	result, err := db.Exec(ctx, `UPDATE outbox SET leased_until = ?, leased_by = ?
		WHERE message = ? AND channel = ? AND state = ? AND attempts = ? AND next_at <= ? AND leased_until <= ?`,
		until.Unix(), holder, l.message, l.channel, deliveryPending, l.attempts, now.Unix(), now.Unix())
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n == 1, err
}

// finish writes what came of an attempt.
func (l *delivery) finish(ctx context.Context, db *store.DB, holder, state, problem string, now, next time.Time) error {
	delivered, err := json.Marshal(append([]string{}, l.delivered...))
	if err != nil {
		return err
	}
	_, err = db.Exec(ctx, `UPDATE outbox SET state = ?, attempts = attempts + 1, attempted_at = ?, next_at = ?, leased_until = 0, leased_by = '', delivered = ?, error = ?
		WHERE message = ? AND channel = ? AND leased_by = ?`, state, now.Unix(), next.Unix(), string(delivered), problem, l.message, l.channel, holder)
	return err
}

// reopen has messages tried again that could not be delivered, and at once also those
// that wait, if it is to hurry.
func reopen(ctx context.Context, db *store.DB, now, since time.Time, hurry bool) error {
	condition, args := "state = ?", []any{deliveryPending, now.Unix(), since.Unix(), deliveryFailed}
	if hurry {
		condition, args = "state IN (?, ?)", append(args, deliveryPending)
	}
	_, err := db.Exec(ctx, "UPDATE outbox SET state = ?, next_at = ? WHERE created_at >= ? AND "+condition, args...)
	return err
}

// lastProblems returns for each channel what was wrong with the last attempt of any
// gateway since a time, empty if nothing was.
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

// forget deletes what is too old to matter.
func forget(ctx context.Context, db *store.DB, before time.Time) error {
	return db.Tx(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM quota_events WHERE ends_at < ?", before.Unix()); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "DELETE FROM outbox WHERE created_at < ?", before.Unix())
		return err
	})
}
