package bandwidth

import (
	"context"
	"time"
)

// breakdown is Total for each key by itself, of all gateways together: of everybody's
// bytes, or of those of consumers.
func (l *Ledger) breakdown(ctx context.Context, consumers bool, from, to time.Time) (all map[Key]Bytes, err error) {
	q := Query{GroupBy: []Dimension{ByService, ByRoute}}
	if consumers {
		q.GroupBy = append(q.GroupBy, ByConsumer)
	}
	begin, end := floorTo(from.Unix(), minute), ceilTo(to.Unix(), minute)
	err = l.read(ctx, begin, end, false, func(tx *Tx, m memory) error {
		b := &breakdown{ctx: ctx, tx: tx, sums: newSums(windows{}, q)}
		if b.marks, err = readWatermarks(ctx, tx); err != nil {
			return err
		}
		if b.groups, err = b.sums.readSeries(ctx, tx); err != nil {
			return err
		}
		bytes, err := b.between(begin, end, day)
		if err != nil {
			return err
		}
		all = make(map[Key]Bytes, len(bytes))
		for group, n := range bytes {
			all[b.sums.keys[group].Key] = n
		}
		for _, entry := range append(m.writing, m.pending...) {
			if b.sums.admits(entry.seriesKey) {
				key := b.sums.keys[b.sums.groupOf(entry.seriesKey)].Key
				sum := all[key]
				sum.Add(entry.Bytes)
				all[key] = sum
			}
		}
		return nil
	})
	return all, err
}

// breakdown adds up rows of all units by group.
type breakdown struct {
	ctx    context.Context
	tx     *Tx
	sums   *sums
	marks  watermarks
	groups map[int64]int // by series
}

// byGroup are bytes by the number of a group.
type byGroup map[int]Bytes

func (g byGroup) add(o byGroup) {
	for group, n := range o {
		sum := g[group]
		sum.Add(n)
		g[group] = sum
	}
}

// between adds up what is in whole units by the rows of that unit, and what is left at
// both ends by finer ones.
func (b *breakdown) between(from, to, unit int64) (byGroup, error) {
	if from >= to {
		return byGroup{}, nil
	}
	if unit == minute {
		return b.rows(minute, from, to)
	}
	inner, outer := ceilTo(from, unit), floorTo(to, unit)
	if inner > outer { // both ends are in the same unit
		return b.part(from, to, unit)
	}
	all, err := b.rows(unit, inner, outer)
	if err != nil {
		return nil, err
	}
	for _, part := range [][2]int64{{from, inner}, {outer, to}} {
		some, err := b.part(part[0], part[1], unit)
		if err != nil {
			return nil, err
		}
		all.add(some)
	}
	return all, nil
}

// part adds up a part of one unit by finer rows. Where these are not kept any more, the
// unit counts as a whole, at its beginning: see totalizer.
func (b *breakdown) part(from, to, unit int64) (byGroup, error) {
	if from >= to {
		return byGroup{}, nil
	}
	finer := minute
	if unit == day {
		finer = hour
	}
	whole := floorTo(from, unit)
	some, err := b.between(from, to, finer)
	if err != nil || whole >= b.marks.of(finer) {
		return some, err
	}
	sum, err := b.rows(unit, whole, whole+unit)
	if err != nil {
		return nil, err
	}
	kept, err := b.rows(finer, whole, whole+unit)
	if err != nil {
		return nil, err
	}
	for group, n := range sum {
		if kept[group] == n { // by a mark
			continue
		}
		delete(some, group)
		if from == whole {
			some[group] = n
		}
	}
	return some, nil
}

// rows adds up the rows of a unit.
func (b *breakdown) rows(unit, from, to int64) (byGroup, error) {
	all := make(byGroup)
	if from >= to {
		return all, nil
	}
	where, args := b.sums.condition()
	rows, err := b.tx.Query(b.ctx, "SELECT series, CAST(SUM(ingress) AS BIGINT), CAST(SUM(egress) AS BIGINT), "+
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
		if group, ok := b.groups[series]; ok {
			all.add(byGroup{group: n})
		}
	}
	return all, rows.Err()
}
