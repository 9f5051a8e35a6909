package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// Requests returns the request counts of a time range, with the semantics of Usage. It
// does not group by consumer.
func (l *Store) Requests(ctx context.Context, q Query) ([]RequestPoint, error) {
	q.Consumers = nil
	q.GroupBy = slices.DeleteFunc(slices.Clone(q.GroupBy), func(d Dimension) bool { return d == ByConsumer })
	w := windowsOf(q)
	var sum *requestSums
	err := l.read(ctx, w.from, w.to, true, func(tx *Tx, m unwritten) error {
		sum = &requestSums{sums: newSums(w, q), figures: make(map[cellKey]*requestCounts), noSketches: q.NoSketches}
		marks, err := readWatermarks(ctx, tx)
		if err != nil {
			return err
		}
		if w.unit() == minute { // minute rows of requests have a shorter retention
			marks.minutes = max(marks.minutes, marks.requestMinutes)
		}
		groups, err := sum.readSeries(ctx, tx)
		if err != nil {
			return err
		}
		for _, span := range spansOf(w.from, w.to, w.unit(), marks) {
			if err := sum.read(ctx, tx, span, groups); err != nil {
				return err
			}
		}
		for _, entry := range append(m.writingRequests, m.pendingRequests...) {
			if sum.admits(entry.seriesKey) {
				sum.add(entry.at, sum.groupOf(entry.seriesKey), &entry.requestCounts)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading request counts: %w", err)
	}
	return sum.points(), nil
}

// cellKey identifies a group in a window.
type cellKey struct {
	start int64
	group int
}

// requestSums sums request counts by window and group.
type requestSums struct {
	*sums
	figures    map[cellKey]*requestCounts
	noSketches bool
}

func (s *requestSums) add(at int64, group int, f *requestCounts) {
	at = s.startOf(at)
	sum := s.figures[cellKey{at, group}]
	if sum == nil {
		sum = new(requestCounts)
		s.figures[cellKey{at, group}] = sum
	}
	sum.requests += f.requests
	sum.errors += f.errors
	sum.seconds += f.seconds
	if !s.noSketches {
		sum.sketches = append(sum.sketches, f.sketches...) // merged once at the end
	}
}

func (s *requestSums) read(ctx context.Context, tx *Tx, span span, groups map[int64]int) error {
	where, args := s.condition()
	sketch := "sketch"
	if s.noSketches {
		sketch = "NULL"
	}
	rows, err := tx.Query(ctx, "SELECT at, series, requests, errors, seconds, "+sketch+" FROM "+tableOf(span.unit).requests+
		" WHERE at >= ? AND at < ? AND series IN (SELECT id FROM series WHERE "+where+")",
		append([]any{span.from, span.to}, args...)...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var at, series int64
		var f requestCounts
		var sketch []byte
		if err := rows.Scan(&at, &series, &f.requests, &f.errors, &f.seconds, &sketch); err != nil {
			return err
		}
		if sketch != nil {
			f.sketches = [][]byte{sketch}
		}
		if group, ok := groups[series]; ok {
			s.add(at, group, &f)
		}
	}
	return rows.Err()
}

func (s *requestSums) points() []RequestPoint {
	points := make([]RequestPoint, 0, len(s.figures))
	for at, f := range s.figures {
		key := s.keys[at.group]
		points = append(points, RequestPoint{
			Start: time.Unix(at.start, 0).UTC(), Gateway: key.gateway, Service: key.Service, Route: key.Route,
			Requests: f.requests, Errors: f.errors, Seconds: f.seconds, Sketch: f.sketch(),
		})
	}
	slices.SortFunc(points, func(a, b RequestPoint) int {
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Route, b.Route), cmp.Compare(a.Gateway, b.Gateway))
	})
	return points
}
