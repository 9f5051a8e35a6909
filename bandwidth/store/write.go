package store

import (
	"cmp"
	"context"
	"hash/fnv"
	"iter"
	"maps"
	"slices"
	"strings"
)

type tables struct {
	seconds         int64
	bytes, requests string // table names
}

// units lists the tables by row length.
var units = []tables{
	{minute, "bytes_minute", "answers_minute"},
	{hour, "bytes_hour", "answers_hour"},
	{day, "bytes_day", "answers_day"},
}

func tableOf(unit int64) tables {
	switch unit {
	case minute:
		return units[0]
	case hour:
		return units[1]
	}
	return units[2]
}

// write adds a batch to the tables unless it has been written. The caller holds
// l.flushing.
func (l *Store) write(ctx context.Context, b *batch, seq int64) error {
	learned := make(map[seriesKey]int64)
	err := l.db.Tx(ctx, func(tx *Tx) error {
		if tx.dialect == postgres {
			// Sketches are merged outside of the database, so processes with the same
			// node name must be serialized.
			if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(?)", lockOf(l.node)); err != nil {
				return err
			}
		}
		fresh, err := l.claim(ctx, tx, seq)
		if err != nil || !fresh {
			return err
		}
		if err := l.assignIDs(ctx, tx, b, learned); err != nil {
			return err
		}
		for _, unit := range units {
			if unit.seconds > minute {
				b = b.coarser(unit.seconds)
			}
			if err := addBytes(ctx, tx, unit.bytes, l.numbered(b, learned)); err != nil {
				return err
			}
			if err := l.addRequests(ctx, tx, unit.requests, b, learned); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for key, id := range learned {
		l.ids[key] = id
	}
	return nil
}

func lockOf(node string) int64 {
	h := fnv.New64a()
	h.Write([]byte("rgate " + node))
	return int64(h.Sum64())
}

// claim records that the batch seq is written. fresh is false if it was written before.
func (l *Store) claim(ctx context.Context, tx *Tx, seq int64) (fresh bool, err error) {
	result, err := tx.Exec(ctx, `INSERT INTO flushes (writer, seq, at) VALUES (?, ?, ?)
		ON CONFLICT (writer) DO UPDATE SET seq = excluded.seq, at = excluded.at WHERE flushes.seq < excluded.seq`,
		l.writer, seq, l.now().Unix())
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// assignIDs finds or creates the IDs of series that are not in l.ids.
func (l *Store) assignIDs(ctx context.Context, tx *Tx, b *batch, learned map[seriesKey]int64) error {
	missing := make(map[string]map[Key]bool) // by gateway
	seek := func(key seriesKey) {
		if l.ids[key] != 0 {
			return
		}
		if missing[key.gateway] == nil {
			missing[key.gateway] = make(map[Key]bool)
		}
		missing[key.gateway][key.Key] = true
	}
	for key := range b.bytes {
		seek(key.seriesKey)
	}
	for key := range b.requests {
		seek(key.seriesKey)
	}
	for gateway, keys := range missing {
		ids, err := seriesOf(ctx, tx, gateway, maps.Keys(keys))
		if err != nil {
			return err
		}
		for key, id := range ids {
			learned[seriesKey{gateway, key}] = id
		}
	}
	return nil
}

// seriesOf returns the IDs of a gateway's series. It creates missing series for keys.
func seriesOf(ctx context.Context, tx *Tx, gateway string, keys iter.Seq[Key]) (map[Key]int64, error) {
	for attempt := 0; ; attempt++ {
		ids, err := knownSeries(ctx, tx, gateway)
		if err != nil {
			return nil, err
		}
		var missing []any
		for key := range keys {
			if _, ok := ids[key]; !ok {
				missing = append(missing, gateway, key.Service, key.Route, key.Consumer)
			}
		}
		if len(missing) == 0 || attempt > 0 {
			return ids, nil
		}
		for some := range slices.Chunk(missing, 4*rowsPerStatement) {
			if _, err := tx.Exec(ctx, "INSERT INTO series (gateway, service, route, consumer) VALUES "+placeholders(len(some)/4, 4)+
				" ON CONFLICT (gateway, service, route, consumer) DO NOTHING", some...); err != nil {
				return nil, err
			}
		}
	}
}

func knownSeries(ctx context.Context, tx *Tx, gateway string) (map[Key]int64, error) {
	rows, err := tx.Query(ctx, "SELECT id, service, route, consumer FROM series WHERE gateway = ?", gateway)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	ids := make(map[Key]int64)
	for rows.Next() {
		var id int64
		var key Key
		if err := rows.Scan(&id, &key.Service, &key.Route, &key.Consumer); err != nil {
			return nil, err
		}
		ids[key] = id
	}
	return ids, rows.Err()
}

func (l *Store) idOf(key seriesKey, learned map[seriesKey]int64) int64 {
	if id := l.ids[key]; id != 0 {
		return id
	}
	return learned[key]
}

// byteRow is a row of a bytes table.
type byteRow struct {
	at, series int64
	*Bytes
}

// numbered returns the bytes of a batch with series IDs, in the order of the primary key.
func (l *Store) numbered(b *batch, learned map[seriesKey]int64) []byteRow {
	rows := make([]byteRow, 0, len(b.bytes))
	for key, n := range b.bytes {
		rows = append(rows, byteRow{key.at, l.idOf(key.seriesKey, learned), n})
	}
	slices.SortFunc(rows, func(a, b byteRow) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.series, b.series))
	})
	return rows
}

// rowsPerStatement limits the parameters of a statement. The SQLite driver's parameter
// lookup takes quadratic time.
const rowsPerStatement = 32

func addBytes(ctx context.Context, tx *Tx, table string, rows []byteRow) error {
	for some := range slices.Chunk(rows, rowsPerStatement) {
		args := make([]any, 0, 6*len(some))
		for _, row := range some {
			args = append(args, row.at, row.series, row.Ingress, row.Egress, row.IngressHeaders, row.EgressHeaders)
		}
		if _, err := tx.Exec(ctx, "INSERT INTO "+table+" (at, series, ingress, egress, ingress_headers, egress_headers) VALUES "+
			placeholders(len(some), 6)+" ON CONFLICT (at, series) DO UPDATE SET "+
			"ingress = "+table+".ingress + excluded.ingress, egress = "+table+".egress + excluded.egress, "+
			"ingress_headers = "+table+".ingress_headers + excluded.ingress_headers, egress_headers = "+table+".egress_headers + excluded.egress_headers",
			args...); err != nil {
			return err
		}
	}
	return nil
}

// placeholders returns the SQL placeholders for a number of rows.
func placeholders(rows, columns int) string {
	row := "(" + strings.Repeat("?, ", columns-1) + "?)"
	return strings.Repeat(row+", ", rows-1) + row
}

// requestCountRow is a row of a requests table.
type requestCountRow struct {
	at, series int64
	*requestCounts
	stored []byte // sketch in the table
}

// addRequests adds request counts to a table. Sketches of existing rows are read and
// merged in Go: no other process writes them during the transaction.
func (l *Store) addRequests(ctx context.Context, tx *Tx, table string, b *batch, learned map[seriesKey]int64) error {
	rows := make([]*requestCountRow, 0, len(b.requests))
	for key, f := range b.requests {
		rows = append(rows, &requestCountRow{at: key.at, series: l.idOf(key.seriesKey, learned), requestCounts: f})
	}
	slices.SortFunc(rows, func(a, b *requestCountRow) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.series, b.series))
	})
	for some := range slices.Chunk(rows, rowsPerStatement) {
		if err := readSketches(ctx, tx, table, some); err != nil {
			return err
		}
		args := make([]any, 0, 6*len(some))
		for _, row := range some {
			args = append(args, row.at, row.series, int64(row.requests), int64(row.errors), row.seconds, row.merged())
		}
		if _, err := tx.Exec(ctx, "INSERT INTO "+table+" (at, series, requests, errors, seconds, sketch) VALUES "+
			placeholders(len(some), 6)+" ON CONFLICT (at, series) DO UPDATE SET "+
			"requests = "+table+".requests + excluded.requests, errors = "+table+".errors + excluded.errors, "+
			"seconds = "+table+".seconds + excluded.seconds, sketch = excluded.sketch", args...); err != nil {
			return err
		}
	}
	return nil
}

// merged returns the sketch to write, or nil. It does not modify the row, because the
// batch may be retried.
func (row *requestCountRow) merged() any {
	sum := requestCounts{sketches: slices.Clone(row.sketches)}
	if row.stored != nil {
		sum.sketches = append(sum.sketches, row.stored)
	}
	if sketch := sum.sketch(); sketch != nil {
		return sketch
	}
	return nil
}

// readSketches reads the stored sketches of rows, which must be sorted by time.
func readSketches(ctx context.Context, tx *Tx, table string, some []*requestCountRow) error {
	for begin := 0; begin < len(some); {
		end := begin
		for end < len(some) && some[end].at == some[begin].at {
			end++
		}
		if err := readSketchesAt(ctx, tx, table, some[begin:end]); err != nil {
			return err
		}
		begin = end
	}
	return nil
}

// readSketchesAt reads the stored sketches of rows with the same time.
func readSketchesAt(ctx context.Context, tx *Tx, table string, some []*requestCountRow) error {
	bySeries := make(map[int64]*requestCountRow, len(some))
	args := []any{some[0].at}
	for _, row := range some {
		bySeries[row.series] = row
		args = append(args, row.series)
	}
	rows, err := tx.Query(ctx, "SELECT series, sketch FROM "+table+" WHERE at = ? AND sketch IS NOT NULL AND series IN "+
		placeholders(1, len(some)), args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var series int64
		var sketch []byte
		if err := rows.Scan(&series, &sketch); err != nil {
			return err
		}
		if row := bySeries[series]; row != nil {
			row.stored = sketch
		}
	}
	return rows.Err()
}
