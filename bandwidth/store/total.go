package store

import (
	"context"
	"fmt"
	"time"
)

// Total returns the bytes of a time range, including bytes that are not in the database
// yet. The range is aligned to whole minutes, including both ends. The result is exact
// where minutes are kept, and before that if the start has a Mark.
func (l *Store) Total(ctx context.Context, f Filter, from, to time.Time) (total Bytes, err error) {
	all, err := l.totalsOf(ctx, Query{Filter: f}, from, to)
	if err != nil {
		return Bytes{}, fmt.Errorf("summing bandwidth: %w", err)
	}
	return all[Key{}], nil
}

// TotalsByKey returns Total for each key, summed over all gateways. If consumers is true,
// it returns rows with a consumer, else rows without.
func (l *Store) TotalsByKey(ctx context.Context, consumers bool, from, to time.Time) (map[Key]Bytes, error) {
	q := Query{GroupBy: []Dimension{ByService, ByRoute}}
	if consumers {
		q.GroupBy = append(q.GroupBy, ByConsumer)
	}
	return l.totalsOf(ctx, q, from, to)
}

// totalsOf returns totals by the dimensions of a query except the gateway. It ignores the
// query's time range and windows.
func (l *Store) totalsOf(ctx context.Context, q Query, from, to time.Time) (all map[Key]Bytes, err error) {
	begin, end := floorTo(from.Unix(), minute), floorTo(to.Unix(), minute)
	if to.After(time.Unix(end, 0)) {
		end += minute
	}
	err = l.read(ctx, begin, end, false, func(tx *Tx, m unwritten) error {
		t := &totalizer{ctx: ctx, tx: tx, sums: newSums(windows{}, q)}
		if t.marks, err = readWatermarks(ctx, tx); err != nil {
			return err
		}
		if t.groups, err = t.sums.readSeries(ctx, tx); err != nil {
			return err
		}
		bytes, err := t.between(begin, end, day)
		if err != nil {
			return err
		}
		for _, entry := range append(m.writing, m.pending...) {
			if t.sums.admits(entry.seriesKey) {
				bytes.add(byGroup{t.sums.groupOf(entry.seriesKey): entry.Bytes})
			}
		}
		all = make(map[Key]Bytes, len(bytes))
		for group, n := range bytes {
			all[t.sums.keys[group].Key] = n
		}
		return nil
	})
	return all, err
}

// totalizer sums rows of all lengths by group.
type totalizer struct {
	ctx    context.Context
	tx     *Tx
	sums   *sums
	marks  watermarks
	groups map[int64]int // by series ID
}

// byGroup holds bytes by group number.
type byGroup map[int]Bytes

func (g byGroup) add(o byGroup) {
	for group, n := range o {
		sum := g[group]
		sum.Add(n)
		g[group] = sum
	}
}

// between sums whole units from the rows of that unit, and the rest at both ends from
// finer rows.
func (t *totalizer) between(from, to, unit int64) (byGroup, error) {
	if from >= to {
		return byGroup{}, nil
	}
	if unit == minute {
		return t.rows(minute, from, to)
	}
	inner, outer := ceilTo(from, unit), floorTo(to, unit)
	if inner > outer { // both ends are in the same unit
		return t.part(from, to, unit)
	}
	all, err := t.rows(unit, inner, outer)
	if err != nil {
		return nil, err
	}
	for _, part := range [][2]int64{{from, inner}, {outer, to}} {
		some, err := t.part(part[0], part[1], unit)
		if err != nil {
			return nil, err
		}
		all.add(some)
	}
	return all, nil
}

// part sums a part of one unit from finer rows. If these were deleted, the whole unit
// counts at its start.
func (t *totalizer) part(from, to, unit int64) (byGroup, error) {
	if from >= to {
		return byGroup{}, nil
	}
	finer := minute
	if unit == day {
		finer = hour
	}
	whole := floorTo(from, unit)
	some, err := t.between(from, to, finer)
	if err != nil || whole >= t.marks.of(finer) {
		return some, err
	}
	sum, err := t.rows(unit, whole, whole+unit)
	if err != nil {
		return nil, err
	}
	kept, err := t.rows(finer, whole, whole+unit)
	if err != nil {
		return nil, err
	}
	for group, n := range sum {
		if kept[group] == n { // kept by a mark
			continue
		}
		delete(some, group)
		if from == whole {
			some[group] = n
		}
	}
	return some, nil
}

// rows sums the rows of a unit.
func (t *totalizer) rows(unit, from, to int64) (byGroup, error) {
	all := make(byGroup)
	if from >= to {
		return all, nil
	}
	where, args := t.sums.condition()
	rows, err := t.tx.Query(t.ctx, "SELECT series, CAST(SUM(ingress) AS BIGINT), CAST(SUM(egress) AS BIGINT), "+
		"CAST(SUM(ingress_headers) AS BIGINT), CAST(SUM(egress_headers) AS BIGINT) FROM "+tableOf(unit).bytes+
		" WHERE at >= ? AND at < ? AND series IN (SELECT id FROM series WHERE "+where+") GROUP BY series", append([]any{from, to}, args...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var series int64
		var n Bytes
		if err := rows.Scan(&series, &n.Ingress, &n.Egress, &n.IngressHeaders, &n.EgressHeaders); err != nil {
			return nil, err
		}
		if group, ok := t.groups[series]; ok {
			all.add(byGroup{group: n})
		}
	}
	return all, rows.Err()
}
