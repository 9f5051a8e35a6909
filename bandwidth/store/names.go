package store

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// Names returns the names that there are bytes of since the day of a time, in order.
func (l *Ledger) Names(ctx context.Context, since time.Time) (services, routes, consumers, gateways []string, err error) {
	from := floorTo(since.Unix(), day)
	var found [4]map[string]bool
	err = l.read(ctx, from, math.MaxInt64, false, func(tx *Tx, m memory) error {
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
