package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// unwritten is a copy of the rows that a store has collected and not written.
type unwritten struct {
	seq     int64
	writing []byteEntry // may be in the database already
	pending []byteEntry

	writingRequests, pendingRequests []requestEntry
}

type byteEntry struct {
	rowKey
	Bytes
}

type requestEntry struct {
	rowKey
	requestCounts
}

// copyUnwritten copies the rows in memory of a time range.
func (l *Store) copyUnwritten(from, to int64, requests bool) (m unwritten) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m.seq = l.seq
	for _, part := range []struct {
		batch    *batch
		bytes    *[]byteEntry
		requests *[]requestEntry
	}{{l.writing, &m.writing, &m.writingRequests}, {l.pending, &m.pending, &m.pendingRequests}} {
		if part.batch == nil {
			continue
		}
		if !requests {
			for key, n := range part.batch.bytes {
				if key.at >= from && key.at < to {
					*part.bytes = append(*part.bytes, byteEntry{key, *n})
				}
			}
			continue
		}
		for key, f := range part.batch.requests {
			if key.at >= from && key.at < to {
				entry := requestEntry{key, *f}
				entry.sketches = slices.Clone(f.sketches)
				*part.requests = append(*part.requests, entry)
			}
		}
	}
	return m
}

// read calls f with a database snapshot and the rows that are not in it. It retries if a
// batch is written between the two reads, so f must reset its results on each call.
func (l *Store) read(ctx context.Context, from, to int64, requests bool, f func(*Tx, unwritten) error) error {
	errMoved := errors.New("a batch was written concurrently")
	attempt := func() error {
		m := l.copyUnwritten(from, to, requests)
		return l.db.snapshot(ctx, func(tx *Tx) error {
			var seq int64
			err := tx.QueryRow(ctx, "SELECT seq FROM flushes WHERE writer = ?", l.writer).Scan(&seq)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			if seq > m.seq {
				return errMoved
			}
			if seq == m.seq {
				m.writing, m.writingRequests = nil, nil
			}
			return f(tx, m)
		})
	}
	for range 3 {
		if err := attempt(); err != errMoved {
			return err
		}
	}
	l.flushing.Lock()
	defer l.flushing.Unlock()
	return attempt()
}

// Usage returns the bytes of a time range, ordered by window and name. It includes bytes
// that are not in the database yet. The range is aligned to whole windows. Where minute
// or hour rows were deleted, hour or day rows count at their start: sums of whole hours or
// days stay exact.
func (l *Store) Usage(ctx context.Context, q Query) ([]Point, error) {
	w := windowsOf(q)
	var sum *sums
	err := l.read(ctx, w.from, w.to, false, func(tx *Tx, m unwritten) error {
		sum = newSums(w, q)
		marks, err := readWatermarks(ctx, tx)
		if err != nil {
			return err
		}
		groups, err := sum.readSeries(ctx, tx)
		if err != nil {
			return err
		}
		for _, span := range spansOf(w.from, w.to, w.unit(), marks) {
			if err := sum.readBytes(ctx, tx, span, groups); err != nil {
				return err
			}
		}
		for _, entry := range append(m.writing, m.pending...) {
			if sum.admits(entry.seriesKey) {
				sum.add(entry.at, sum.groupOf(entry.seriesKey), entry.Bytes)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading bandwidth: %w", err)
	}
	return sum.points(), nil
}

func readWatermarks(ctx context.Context, tx *Tx) (w watermarks, err error) {
	rows, err := tx.Query(ctx, "SELECT name, before FROM pruned")
	if err != nil {
		return w, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var before int64
		if err := rows.Scan(&name, &before); err != nil {
			return w, err
		}
		switch name {
		case "minutes":
			w.minutes = before
		case "hours":
			w.hours = before
		case "answers":
			w.requestMinutes = before
		}
	}
	return w, rows.Err()
}

// sums sums bytes by window and group.
type sums struct {
	windows
	filter Filter
	by     map[Dimension]bool
	groups map[seriesKey]int // group numbers
	keys   []seriesKey       // by group number
	cells  []cell            // may contain several cells per window and group
	merged int               // number of cells after the last merge
	all    int               // number of series in the database, including those that do not match
}

// cell holds the bytes of a group in a window.
type cell struct {
	start int64
	group int
	Bytes
}

func newSums(w windows, q Query) *sums {
	s := &sums{windows: w, filter: q.Filter, by: make(map[Dimension]bool), groups: make(map[seriesKey]int)}
	for _, d := range q.GroupBy {
		s.by[d] = true
	}
	return s
}

// admits reports whether a series matches the filter.
func (s *sums) admits(key seriesKey) bool {
	f := &s.filter
	return admits(f.Gateways, key.gateway) && admits(f.Services, key.Service) && admits(f.Routes, key.Route) &&
		(key.Consumer != "") == s.ofConsumers() && admits(f.Consumers, key.Consumer)
}

// ofConsumers reports whether rows with a consumer are read, instead of rows without.
func (s *sums) ofConsumers() bool { return s.by[ByConsumer] || len(s.filter.Consumers) > 0 }

func admits(list []string, name string) bool { return len(list) == 0 || slices.Contains(list, name) }

// groupOf returns the group number of a series.
func (s *sums) groupOf(key seriesKey) int {
	if !s.by[ByGateway] {
		key.gateway = ""
	}
	if !s.by[ByService] {
		key.Service = ""
	}
	if !s.by[ByRoute] {
		key.Route = ""
	}
	if !s.by[ByConsumer] {
		key.Consumer = ""
	}
	group, ok := s.groups[key]
	if !ok {
		group = len(s.keys)
		s.groups[key] = group
		s.keys = append(s.keys, key)
	}
	return group
}

func (s *sums) add(at int64, group int, n Bytes) {
	s.cells = append(s.cells, cell{s.startOf(at), group, n})
	if len(s.cells) > 2*s.merged+10_000 {
		s.merge()
	}
}

// merge merges cells with the same window and group.
func (s *sums) merge() {
	slices.SortFunc(s.cells, func(a, b cell) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.group, b.group))
	})
	kept := s.cells[:0]
	for _, c := range s.cells {
		if last := len(kept) - 1; last >= 0 && kept[last].start == c.start && kept[last].group == c.group {
			kept[last].Add(c.Bytes)
		} else {
			kept = append(kept, c)
		}
	}
	s.cells, s.merged = kept, len(kept)
}

// inOrder renumbers groups by name.
func (s *sums) inOrder() {
	order := make([]int, len(s.keys))
	for group := range order {
		order[group] = group
	}
	slices.SortFunc(order, func(a, b int) int { return compareSeries(s.keys[a], s.keys[b]) })
	ranks, keys := make([]int, len(order)), make([]seriesKey, len(order))
	for rank, group := range order {
		ranks[group], keys[rank] = rank, s.keys[group]
	}
	for i := range s.cells {
		s.cells[i].group = ranks[s.cells[i].group]
	}
	s.keys = keys
	clear(s.groups)
}

func compareSeries(a, b seriesKey) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Route, b.Route),
		cmp.Compare(a.Consumer, b.Consumer), cmp.Compare(a.gateway, b.gateway))
}

func (s *sums) points() []Point {
	s.inOrder()
	s.merge()
	points := make([]Point, len(s.cells))
	for i, c := range s.cells {
		key := &s.keys[c.group]
		points[i] = Point{Start: time.Unix(c.start, 0).UTC(), Gateway: key.gateway, Key: key.Key, Bytes: c.Bytes}
	}
	return points
}

// condition returns the filter as an SQL condition on series.
func (s *sums) condition() (where string, args []any) {
	where = "consumer = ''"
	if s.ofConsumers() {
		where = "consumer <> ''"
	}
	for _, list := range []struct {
		column string
		names  []string
	}{{"gateway", s.filter.Gateways}, {"service", s.filter.Services}, {"route", s.filter.Routes}, {"consumer", s.filter.Consumers}} {
		if len(list.names) == 0 {
			continue
		}
		where += " AND " + list.column + " IN " + placeholders(1, len(list.names))
		for _, name := range list.names {
			args = append(args, name)
		}
	}
	return where, args
}

// readSeries returns the group number of each matching series, by series ID.
func (s *sums) readSeries(ctx context.Context, tx *Tx) (map[int64]int, error) {
	if err := tx.QueryRow(ctx, "SELECT COUNT(*) FROM series").Scan(&s.all); err != nil {
		return nil, err
	}
	where, args := s.condition()
	rows, err := tx.Query(ctx, "SELECT id, gateway, service, route, consumer FROM series WHERE "+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	groups := make(map[int64]int)
	for rows.Next() {
		var id int64
		var key seriesKey
		if err := rows.Scan(&id, &key.gateway, &key.Service, &key.Route, &key.Consumer); err != nil {
			return nil, err
		}
		groups[id] = s.groupOf(key)
	}
	return groups, rows.Err()
}

// readBytes adds the rows of a span. If there is only one group, the database computes
// the sums.
func (s *sums) readBytes(ctx context.Context, tx *Tx, span span, groups map[int64]int) error {
	what, end := "at, series, ingress, egress, ingress_headers, egress_headers", ""
	if len(s.keys) == 1 {
		start := "at" // matches the table's order
		if s.step != span.unit {
			start = fmt.Sprintf("at - (at - %d) %% %d", s.offset, s.step)
		}
		what = start + ", MIN(series), CAST(SUM(ingress) AS BIGINT), CAST(SUM(egress) AS BIGINT), " +
			"CAST(SUM(ingress_headers) AS BIGINT), CAST(SUM(egress_headers) AS BIGINT)"
		end = " GROUP BY " + start
	}
	when := "at >= ? AND at < ?"
	if tx.dialect == sqlite && len(groups)*fewOf < s.all {
		// With few matching series, a primary key lookup for each time and series is faster
		// than a scan.
		when = fmt.Sprintf("at IN (WITH RECURSIVE times(at) AS (SELECT ? UNION ALL SELECT at + %d FROM times WHERE at + %d < ?) SELECT at FROM times)",
			span.unit, span.unit)
	}
	where, args := s.condition()
	rows, err := tx.Query(ctx, "SELECT "+what+" FROM "+tableOf(span.unit).bytes+
		" WHERE "+when+" AND series IN (SELECT id FROM series WHERE "+where+")"+end,
		append([]any{ceilTo(span.from, span.unit), span.to}, args...)...)
	if err != nil {
		return err
	}
	defer rows.Close()
	var columns [6]any // faster than scanning into integers
	to := []any{&columns[0], &columns[1], &columns[2], &columns[3], &columns[4], &columns[5]}
	for rows.Next() {
		if err := rows.Scan(to...); err != nil {
			return err
		}
		var n [6]int64
		for i, column := range columns {
			var ok bool
			if n[i], ok = column.(int64); !ok {
				return fmt.Errorf("column %d has unexpected type %T", i, column)
			}
		}
		if group, ok := groups[n[1]]; ok {
			s.add(n[0], group, Bytes{n[2], n[3], n[4], n[5]})
		}
	}
	return rows.Err()
}

// fewOf is the number of rows that can be scanned in the time of one lookup.
const fewOf = 10

// Names returns the sorted names that have bytes since the start of the given day (UTC).
func (l *Store) Names(ctx context.Context, since time.Time) (services, routes, consumers, gateways []string, err error) {
	from := floorTo(since.Unix(), day)
	var found [4]map[string]bool
	err = l.read(ctx, from, math.MaxInt64, false, func(tx *Tx, m unwritten) error {
		for i := range found {
			found[i] = make(map[string]bool)
		}
		note := func(key seriesKey) {
			for i, name := range []string{key.Service, key.Route, key.Consumer, key.gateway} {
				if name != "" {
					found[i][name] = true
				}
			}
		}
		for _, entry := range append(m.writing, m.pending...) {
			note(entry.seriesKey)
		}
		rows, err := tx.Query(ctx, "SELECT gateway, service, route, consumer FROM series WHERE id IN (SELECT series FROM bytes_day WHERE at >= ?)", from)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var key seriesKey
			if err := rows.Scan(&key.gateway, &key.Service, &key.Route, &key.Consumer); err != nil {
				return err
			}
			note(key)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, nil, nil, nil, fmt.Errorf("reading names: %w", err)
	}
	sorted := func(names map[string]bool) []string { return slices.Sorted(maps.Keys(names)) }
	return sorted(found[0]), sorted(found[1]), sorted(found[2]), sorted(found[3]), nil
}
