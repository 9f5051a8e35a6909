package dashboard

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/bandwidth"
	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/stats"
)

// accountRows holds rows recorded by a gateway.
type accountRows struct {
	bytes    []store.Row
	requests []store.RequestRow
}

// store writes the rows to a new SQLite store.
func (rows accountRows) store(t testing.TB) *store.Store {
	t.Helper()
	const always = caddy.Duration(100 * 365 * day) // rows never expire
	meter := &bandwidth.Meter{
		Store: "sqlite://" + filepath.Join(t.TempDir(), "bandwidth.db"), Node: "gw-1", Gateway: "account of " + t.Name(),
		Retention: &bandwidth.Retention{Minutes: always, Hours: always, Days: always},
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := meter.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := meter.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	ledger := store.For(meter.Gateway)
	if err := ledger.DB().Tx(t.Context(), func(tx *store.Tx) error { return rows.insert(t.Context(), tx) }); err != nil {
		t.Fatal(err)
	}
	return ledger
}

type seriesOfRow struct{ gateway, service, route string }

type placeOfRow struct {
	at     int64
	series int64
}

// insert writes the rows by minute, and their sums by hour and day.
func (rows accountRows) insert(ctx context.Context, tx *store.Tx) error {
	ids := make(map[seriesOfRow]int64)
	idOf := func(gateway, service, route string) int64 {
		key := seriesOfRow{gateway, service, route}
		if ids[key] == 0 {
			ids[key] = int64(len(ids) + 1)
		}
		return ids[key]
	}
	for unit, table := range map[time.Duration]string{time.Minute: "minute", time.Hour: "hour", day: "day"} {
		bytes := make(map[placeOfRow]store.Bytes)
		for _, row := range rows.bytes {
			key := placeOfRow{row.Minute.Truncate(unit).Unix(), idOf(row.Gateway, row.Service, row.Route)}
			sum := bytes[key]
			sum.Add(row.Bytes)
			bytes[key] = sum
		}
		add := adder{tx: tx, table: "bytes_" + table + " (at, series, ingress, egress, ingress_headers, egress_headers)"}
		for key, sum := range bytes {
			if err := add.row(ctx, key.at, key.series, sum.Ingress, sum.Egress, sum.IngressHeaders, sum.EgressHeaders); err != nil {
				return err
			}
		}
		if err := add.flush(ctx); err != nil {
			return err
		}
		sums, sketches := make(map[placeOfRow]store.RequestRow), make(map[placeOfRow][][]byte)
		for _, row := range rows.requests {
			key := placeOfRow{row.Minute.Truncate(unit).Unix(), idOf(row.Gateway, row.Service, row.Route)}
			sum := sums[key]
			sum.Requests, sum.Errors, sum.Seconds = sum.Requests+row.Requests, sum.Errors+row.Errors, sum.Seconds+row.Seconds
			sums[key], sketches[key] = sum, append(sketches[key], row.Sketch)
		}
		add = adder{tx: tx, table: "answers_" + table + " (at, series, requests, errors, seconds, sketch)"}
		for key, sum := range sums {
			sketch, err := stats.MergeSketches(sketches[key]...)
			if err != nil {
				return err
			}
			if err := add.row(ctx, key.at, key.series, int64(sum.Requests), int64(sum.Errors), sum.Seconds, sketch); err != nil {
				return err
			}
		}
		if err := add.flush(ctx); err != nil {
			return err
		}
	}
	add := adder{tx: tx, table: "series (id, gateway, service, route, consumer)"}
	for key, id := range ids {
		if err := add.row(ctx, id, key.gateway, key.service, key.route, ""); err != nil {
			return err
		}
	}
	return add.flush(ctx)
}

// adder inserts rows into a table in batches.
type adder struct {
	tx     *store.Tx
	table  string
	values []any
	width  int
}

func (a *adder) row(ctx context.Context, values ...any) error {
	a.values, a.width = append(a.values, values...), len(values)
	if len(a.values) < 3000 {
		return nil
	}
	return a.flush(ctx)
}

func (a *adder) flush(ctx context.Context) error {
	if len(a.values) == 0 {
		return nil
	}
	row := ", (?" + strings.Repeat(", ?", a.width-1) + ")"
	_, err := a.tx.Exec(ctx, "INSERT INTO "+a.table+" VALUES "+strings.Repeat(row, len(a.values)/a.width)[2:], a.values...)
	a.values = a.values[:0]
	return err
}
