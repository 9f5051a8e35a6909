package store

import (
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth/storetest"
)

func rowAt(at int64, service string) rowKey {
	return rowKey{at, seriesKey{"test", Key{Service: service}}}
}

func TestBatchIsTakenOldestFirst(t *testing.T) {
	b := newBatch()
	for m := range int64(100) {
		b.addBytes(rowAt(m*minute, "a"), Bytes{Egress: m})
		b.addBytes(rowAt(m*minute, "b"), Bytes{Egress: 1})
		b.addRequests(rowAt(m*minute, "b"), requestCounts{requests: 1})
	}
	oldest := int64(0)
	for n := 0; b.len() > 0; n++ {
		some := b.take(10)
		if some.len() < 1 || some.len() > 12 {
			t.Fatalf("%d rows were taken", some.len())
		}
		for key := range some.bytes {
			if key.at < oldest {
				t.Fatalf("minute %d came after %d", key.at/minute, oldest/minute)
			}
		}
		for key := range some.bytes {
			oldest = max(oldest, key.at)
		}
		if n > 100 {
			t.Fatal("it does not end")
		}
	}
}

// After a day without a database, minute rows are merged into hour rows without losing
// bytes.
func TestBatchIsBounded(t *testing.T) {
	const limit = 3000
	b, sum := newBatch(), Bytes{}
	now := 100 * day
	marked := now - 5*hour
	for m := now - day; m < now; m += minute {
		for _, service := range []string{"a", "b", "c"} {
			n := Bytes{Egress: m % 1000, Ingress: 1}
			sum.Add(n)
			b.addBytes(rowAt(m, service), n)
			b.addRequests(rowAt(m, service), requestCounts{requests: 1, sketches: [][]byte{sketchOf(t, time.Millisecond)}})
		}
	}
	b.bound(limit, now, func(at, unit int64) bool { return marked >= at && marked < at+unit })
	if b.len() > limit {
		t.Errorf("%d rows are left, more than %d", b.len(), limit)
	}
	var got Bytes
	kept := 0
	for key, n := range b.bytes {
		got.Add(*n)
		if key.at > marked && key.at < marked+hour {
			kept++
		}
	}
	requests, inSketches := uint64(0), 0.0
	for _, f := range b.requests {
		requests += f.requests
		inSketches += countOf(t, f.sketch())
	}
	if got != sum || requests != 3*1440 || inSketches != 3*1440 {
		t.Errorf("%+v bytes, %d requests and %g in sketches are left", got, requests, inSketches)
	}
	if kept != 3*59 {
		t.Errorf("%d rows are left in the hour of the mark", kept)
	}
}

func TestFigures(t *testing.T) {
	var f requestCounts
	for range 100 {
		f.add(&requestCounts{requests: 1, seconds: 1, sketches: [][]byte{sketchOf(t, time.Second)}})
	}
	if len(f.sketches) > maxSketches || countOf(t, f.sketch()) != 100 || f.requests != 100 || f.seconds != 100 {
		t.Errorf("%d sketches, %d requests, %g seconds", len(f.sketches), f.requests, f.seconds)
	}
	f.add(&requestCounts{sketches: [][]byte{[]byte("no sketch")}})
	if f.sketch() != nil { // an invalid sketch is dropped
		t.Error("an invalid sketch was merged")
	}
}

func TestWindows(t *testing.T) {
	at := func(text string) time.Time { return storetest.Time(t, text) }
	for name, test := range map[string]struct {
		from, to, step string
		begin, end     string
	}{
		"minutes": {"2026-03-05T10:00:30Z", "2026-03-05T10:05:00Z", "1m", "2026-03-05T10:00:00Z", "2026-03-05T10:05:00Z"},
		"a part":  {"2026-03-05T10:00:30Z", "2026-03-05T10:05:01Z", "1m", "2026-03-05T10:00:00Z", "2026-03-05T10:06:00Z"},
		"days":    {"2026-03-05T10:00:30+02:00", "2026-03-06T00:00:00Z", "24h", "2026-03-05T00:00:00Z", "2026-03-06T00:00:00Z"},
		"weeks":   {"2026-03-05T10:00:30Z", "2026-03-10T00:00:00Z", "168h", "2026-03-02T00:00:00Z", "2026-03-16T00:00:00Z"},
		"nothing": {"2026-03-05T10:00:00Z", "2026-03-05T10:00:00Z", "5m", "2026-03-05T10:00:00Z", "2026-03-05T10:00:00Z"},
		"seconds": {"2026-03-05T10:00:00Z", "2026-03-05T10:00:10Z", "1s", "2026-03-05T10:00:00Z", "2026-03-05T10:01:00Z"},
	} {
		step, err := time.ParseDuration(test.step)
		must(t, err)
		w := windowsOf(Query{From: at(test.from), To: at(test.to), Step: step})
		if w.from != at(test.begin).Unix() || w.to != at(test.end).Unix() {
			t.Errorf("%s: from %s to %s", name, time.Unix(w.from, 0).UTC(), time.Unix(w.to, 0).UTC())
		}
	}
}
