package store

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"
)

// SourceState is the state of a source that is saved between scrapes.
type SourceState struct {
	Since   int64            // Unix time when the source was added; 0 if never
	Scraped int64            // Unix time of the last successful scrape; 0 if never
	Started float64          // process start time at the last scrape, in Unix seconds
	Values  map[string]int64 // last value of each counter
}

// LoadSource returns the saved state of a source and its record number. If the source is
// unknown, LoadSource creates it with the given since.
func (l *Store) LoadSource(ctx context.Context, source string, since time.Time) (m SourceState, number int64, err error) {
	err = l.db.Tx(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO sources (name, since, scraped, started, number) VALUES (?, ?, 0, 0, 0) ON CONFLICT (name) DO NOTHING",
			source, since.Unix()); err != nil {
			return err
		}
		m.Values = make(map[string]int64)
		if err := tx.QueryRow(ctx, "SELECT since, scraped, started, number FROM sources WHERE name = ?", source).
			Scan(&m.Since, &m.Scraped, &m.Started, &number); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, "SELECT series, bytes FROM source_counters WHERE source = ?", source)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var series string
			var bytes int64
			if err := rows.Scan(&series, &bytes); err != nil {
				return err
			}
			m.Values[series] = bytes
		}
		return rows.Err()
	})
	return m, number, err
}

// SaveSource adds bytes to the minute of at and saves the source's new state, in one
// transaction. done is false if the source's record number is not number: another gateway
// recorded a scrape first.
func (l *Store) SaveSource(ctx context.Context, source string, number int64, at time.Time, bytes map[Key]Bytes, before, now SourceState) (done bool, err error) {
	err = l.db.Tx(ctx, func(tx *Tx) error {
		done = false
		result, err := tx.Exec(ctx, "UPDATE sources SET scraped = ?, started = ?, number = number + 1 WHERE name = ? AND number = ?",
			now.Scraped, now.Started, source, number)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return err
		}
		if err := saveCounters(ctx, tx, source, before.Values, now.Values); err != nil {
			return err
		}
		if err := addSourceBytes(ctx, tx, source, at.Unix(), bytes); err != nil {
			return err
		}
		done = true
		return nil
	})
	return done && err == nil, err
}

// saveCounters writes the changed counters and deletes those that are not in now.
func saveCounters(ctx context.Context, tx *Tx, source string, before, now map[string]int64) error {
	for series := range before { // counters of the previous process
		if _, ok := now[series]; ok {
			continue
		}
		if _, err := tx.Exec(ctx, "DELETE FROM source_counters WHERE source = ? AND series = ?", source, series); err != nil {
			return err
		}
	}
	var changed []string
	for series, bytes := range now {
		if old, ok := before[series]; !ok || old != bytes {
			changed = append(changed, series)
		}
	}
	slices.Sort(changed) // concurrent transactions must lock rows in the same order
	for some := range slices.Chunk(changed, rowsPerStatement) {
		args := make([]any, 0, 3*len(some))
		for _, series := range some {
			args = append(args, source, series, now[series])
		}
		if _, err := tx.Exec(ctx, "INSERT INTO source_counters (source, series, bytes) VALUES "+placeholders(len(some), 3)+
			" ON CONFLICT (source, series) DO UPDATE SET bytes = excluded.bytes", args...); err != nil {
			return err
		}
	}
	return nil
}

// addSourceBytes adds the bytes of a source to the tables. It ignores invalid values.
func addSourceBytes(ctx context.Context, tx *Tx, source string, at int64, counted map[Key]Bytes) error {
	bytes := make(map[Key]Bytes, len(counted))
	for key, n := range counted {
		if n.sane() {
			key = cleanKey(source, key).Key
			sum := bytes[key]
			sum.Add(n)
			bytes[key] = sum
		}
	}
	if len(bytes) == 0 {
		return nil
	}
	ids, err := seriesOf(ctx, tx, source, maps.Keys(bytes))
	if err != nil {
		return err
	}
	for _, unit := range units {
		rows := make([]byteRow, 0, len(bytes))
		for key, n := range bytes {
			rows = append(rows, byteRow{floorTo(at, unit.seconds), ids[key], &n})
		}
		slices.SortFunc(rows, func(a, b byteRow) int { return cmp.Compare(a.series, b.series) })
		if err := addBytes(ctx, tx, unit.bytes, rows); err != nil {
			return err
		}
	}
	return nil
}
