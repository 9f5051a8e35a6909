package bandwidth

import (
	"context"
	"fmt"
	"time"
)

// Total returns the bytes of a span of time, those included that are not in the
// database yet. The span is cut to whole minutes, those of both ends included. It is
// exact as far as minutes are kept, and before that at a begin that has a Mark.
func (l *Ledger) Total(ctx context.Context, f Filter, from, to time.Time) (total Bytes, err error) {
	begin, end := floorTo(from.Unix(), minute), floorTo(to.Unix(), minute)
	if to.After(time.Unix(end, 0)) {
		end += minute
	}
	err = l.read(ctx, begin, end, false, func(tx *Tx, m memory) error {
		total = Bytes{}
		t := &totalizer{ctx: ctx, tx: tx, sums: newSums(windows{}, Query{Filter: f})}
		if t.marks, err = readWatermarks(ctx, tx); err != nil {
			return err
		}
		t.where, t.args = t.sums.condition()
		if total, err = t.between(begin, end, day); err != nil {
			return err
		}
		for _, entry := range append(m.writing, m.pending...) {
			if t.sums.admits(entry.seriesKey) {
				total.Add(entry.Bytes)
			}
		}
		return nil
	})
	if err != nil {
		return Bytes{}, fmt.Errorf("adding bandwidth up: %w", err)
	}
	return total, nil
}

// totalizer adds up rows of all units.
type totalizer struct {
	ctx   context.Context
	tx    *Tx
	sums  *sums
	marks watermarks
	where string // which series
	args  []any
}

// between adds up what is in whole units by the rows of that unit, and what is left
// at both ends by finer ones.
func (t *totalizer) between(from, to, unit int64) (total Bytes, err error) {
	if from >= to {
		return total, nil
	}
	if unit == minute {
		return t.rows(minute, from, to)
	}
	inner, outer := ceilTo(from, unit), floorTo(to, unit)
	if inner > outer { // both ends are in the same unit
		return t.part(from, to, unit)
	}
	for _, part := range []func() (Bytes, error){
		func() (Bytes, error) { return t.part(from, inner, unit) },
		func() (Bytes, error) { return t.rows(unit, inner, outer) },
		func() (Bytes, error) { return t.part(outer, to, unit) },
	} {
		n, err := part()
		if err != nil {
			return total, err
		}
		total.Add(n)
	}
	return total, nil
}

// part adds up a part of one unit by finer rows. If these are not kept any more, the
// unit counts as a whole, at its beginning.
func (t *totalizer) part(from, to, unit int64) (Bytes, error) {
	if from >= to {
		return Bytes{}, nil
	}
	finer := minute
	if unit == day {
		finer = hour
	}
	whole := floorTo(from, unit)
	if whole >= t.marks.of(finer) {
		return t.between(from, to, finer)
	}
	// It may be one that a mark has kept: then its rows add up.
	sum, err := t.rows(unit, whole, whole+unit)
	if err != nil {
		return Bytes{}, err
	}
	kept, err := t.rows(finer, whole, whole+unit)
	switch {
	case err != nil:
		return Bytes{}, err
	case kept == sum:
		return t.between(from, to, finer)
	case from == whole:
		return sum, nil
	}
	return Bytes{}, nil
}

// rows adds up the rows of a unit.
func (t *totalizer) rows(unit, from, to int64) (n Bytes, err error) {
	if from >= to {
		return n, nil
	}
	err = t.tx.QueryRow(t.ctx, "SELECT CAST(COALESCE(SUM(ingress), 0) AS BIGINT), CAST(COALESCE(SUM(egress), 0) AS BIGINT), "+
		"CAST(COALESCE(SUM(ingress_headers), 0) AS BIGINT), CAST(COALESCE(SUM(egress_headers), 0) AS BIGINT) FROM "+tableOf(unit).bytes+
		" WHERE at >= ? AND at < ? AND series IN (SELECT id FROM series WHERE "+t.where+")",
		append([]any{from, to}, t.args...)...).Scan(&n.Ingress, &n.Egress, &n.IngressHeaders, &n.EgressHeaders)
	return n, err
}
