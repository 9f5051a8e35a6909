package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth/storetest"
	"github.com/rgate/rgate/stats"
)

const benchServices = 100

// bigStore creates a SQLite database with a year of 100 services after retention: day
// rows of a year, hour rows of 90 days and minute rows of 7 days. All benchmarks share
// it, because creating it is slow.
var bigStore = sync.OnceValues(func() (folder string, err error) {
	if folder, err = os.MkdirTemp("", "rgate-bench-"); err != nil {
		return "", err
	}
	removeBigStore = func() { _ = os.RemoveAll(folder) }
	at, err := ParseAddress("sqlite://" + filepath.Join(folder, "bandwidth.db"))
	if err != nil {
		return "", err
	}
	db := newDB(at, time.Now)
	defer db.Close()
	ctx := context.Background()
	var ids []int64
	err = db.Tx(ctx, func(tx *Tx) error {
		var keys []Key
		for n := range benchServices {
			keys = append(keys, Key{Service: fmt.Sprint("service-", n), Route: fmt.Sprint("/api/", n)})
		}
		known, err := seriesOf(ctx, tx, "gw", slices.Values(keys))
		for _, key := range keys {
			ids = append(ids, known[key])
		}
		return err
	})
	for _, part := range []struct {
		table string
		unit  int64
		span  int64
	}{{"bytes_minute", minute, 7 * day}, {"bytes_hour", hour, 90 * day}, {"bytes_day", day, 365 * day}} {
		for from := benchNow - part.span; from < benchNow && err == nil; from += min(day, part.span) {
			err = db.Tx(ctx, func(tx *Tx) error {
				var rows []byteRow
				for at := from; at < from+day; at += part.unit {
					for n, id := range ids {
						rows = append(rows, byteRow{at, id, &Bytes{at % 1e6, at % 1e7 * int64(n), at % 1e4, at % 1e4}})
					}
				}
				return addBytes(ctx, tx, part.table, rows)
			})
		}
	}
	return folder, err
})

var removeBigStore = func() {}

const benchNow = 20_500 * day

// benchLedger returns a store on the big database.
func benchLedger(b *testing.B) *Store {
	b.Helper()
	folder, err := bigStore()
	must(b, err)
	b.Cleanup(func() {
		info, err := os.Stat(filepath.Join(folder, "bandwidth.db"))
		must(b, err)
		b.ReportMetric(float64(info.Size())/1e6, "MB")
	})
	return newTestLedgerOn(b, "sqlite://"+filepath.Join(folder, "bandwidth.db"), "gw", storetest.NewClock(time.Unix(benchNow, 0)))
}

func BenchmarkThirtyDays(b *testing.B) {
	by := []Dimension{ByService}
	for _, test := range []struct {
		name string
		days int
		Query
	}{
		{"by=service/step=1d", 30, Query{Step: 24 * time.Hour, GroupBy: by}},
		{"by=service/step=6h", 30, Query{Step: 6 * time.Hour, GroupBy: by}},
		{"by=service/step=1h", 30, Query{Step: time.Hour, GroupBy: by}},
		{"sum/step=1h", 30, Query{Step: time.Hour}},
		{"one/step=1h", 30, Query{Step: time.Hour, Filter: Filter{Services: []string{"service-7"}}}},
		{"one/step=5m", 30, Query{Step: 5 * time.Minute, Filter: Filter{Services: []string{"service-7"}}}},
		{"sum/step=5m", 30, Query{Step: 5 * time.Minute}},
		{"a_day/by=service/step=5m", 1, Query{Step: 5 * time.Minute, GroupBy: by}},
	} {
		b.Run(test.name, func(b *testing.B) {
			l := benchLedger(b)
			test.To = l.now()
			test.From = test.To.Add(-time.Duration(test.days) * 24 * time.Hour)
			points, err := l.Usage(b.Context(), test.Query)
			must(b, err)
			for b.Loop() {
				if _, err := l.Usage(b.Context(), test.Query); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(points)), "points")
		})
	}
}

func BenchmarkTotal(b *testing.B) {
	l := benchLedger(b)
	to := l.now().Add(-17 * time.Minute)
	for b.Loop() {
		if _, err := l.Total(b.Context(), Filter{Services: []string{"service-7"}}, to.Add(-30*24*time.Hour), to); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFlush measures a flush, which runs every five seconds, by number of series.
func BenchmarkFlush(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		for _, series := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("%s/series=%d", engine, series), func(b *testing.B) {
				store := storetest.SQLite(b)
				if engine == "postgres" {
					store = storetest.Postgres(b)
				}
				clock := storetest.NewClock(time.Unix(benchNow, 0))
				l := newTestLedgerOn(b, store, "gw", clock)
				sketch := sketchOf(b, 3*time.Millisecond)
				for b.Loop() {
					b.StopTimer()
					for n := range series {
						l.recorder.(*storetest.Recorder).Add(stats.Interval{Route: fmt.Sprint("/api/", n), Backend: fmt.Sprint("service-", n),
							Traffic: stats.Traffic{IngressBody: 100, EgressBody: 1000}, Requests: 10, Seconds: 0.03, Sketch: sketch})
					}
					l.Collect()
					clock.Advance(5 * time.Second)
					b.StartTimer()
					if err := l.Flush(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkCollect measures Collect, which runs every second, without the recorder.
func BenchmarkCollect(b *testing.B) {
	l := newTestLedger(b, storetest.NewClock(time.Unix(benchNow, 0)))
	var intervals []stats.Interval
	sketch := sketchOf(b, 3*time.Millisecond)
	for n := range 100 {
		intervals = append(intervals, stats.Interval{Route: fmt.Sprint("/api/", n), Backend: fmt.Sprint("service-", n),
			Traffic: stats.Traffic{IngressBody: 100, EgressBody: 1000}, Requests: 10, Seconds: 0.03, Sketch: sketch})
	}
	b.ReportAllocs()
	for b.Loop() {
		l.recorder.(*storetest.Recorder).Add(intervals...)
		l.Collect()
	}
}
