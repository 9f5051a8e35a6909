package dashboard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth/store"
)

// counting is an account that records queries. The bytes of a window are the current
// value of bytes.
type counting struct {
	account
	spans []time.Duration // the lengths of the queried spans
	bytes int64
	err   error
}

func (c *counting) Usage(_ context.Context, q store.Query) (points []store.Point, err error) {
	c.spans = append(c.spans, q.To.Sub(q.From))
	for at := q.From; at.Before(q.To) && c.err == nil; at = at.Add(q.Step) {
		points = append(points, store.Point{Start: at, Bytes: store.Bytes{Egress: c.bytes}})
	}
	return points, c.err
}

// The result contains each window once. Windows that may still change are current;
// other windows were read at most expiresAfter ago.
func TestPastWindowsAreCached(t *testing.T) {
	for _, r := range timeRanges {
		from := &counting{}
		m := new(usageCache)
		read := make(map[time.Time]int64) // the last read of each window
		began := demoNow
		for now := demoNow; now.Before(demoNow.Add(time.Hour)); now = now.Add(17 * time.Second) {
			s := spanOf(r, r.step, now, time.UTC)
			from.bytes = now.Unix()
			if now.Sub(began) >= expiresAfter {
				began = now
			}
			points, err := cachedAccount{from, m, now}.Usage(t.Context(), store.Query{From: s.from, To: s.end(), Step: s.step})
			if err != nil || len(points) != s.n {
				t.Fatalf("%s at %s: got %d points, %v, want %d", r.name, now, len(points), err, s.n)
			}
			for i, p := range points {
				if !p.Start.Equal(s.start(i)) {
					t.Fatalf("%s at %s: point %d is of %s", r.name, now, i, p.Start)
				}
				if at := time.Unix(p.Egress, 0); at.Before(began.Truncate(time.Second)) || s.start(i+1).Add(finalAfter).After(now) && at.Unix() != now.Unix() {
					t.Fatalf("%s at %s: the window of %s is from %s", r.name, now, p.Start, at)
				}
				read[p.Start] = p.Egress
			}
		}
		whole := 0
		for _, span := range from.spans {
			if span > r.length {
				whole++
			}
		}
		if whole > 7 || r.step < r.length/5 && slices.Min(from.spans) > finalAfter+2*r.step {
			t.Errorf("%s: of %d reads, %d were of all of it, and the shortest of %s", r.name, len(from.spans), whole, slices.Min(from.spans))
		}
	}
}

func TestFailuresAreNotCached(t *testing.T) {
	from, m := &counting{err: errors.New("away")}, new(usageCache)
	q := store.Query{From: demoNow.Add(-time.Hour).Truncate(time.Minute), To: demoNow.Truncate(time.Minute), Step: time.Minute}
	if _, err := (cachedAccount{from, m, demoNow}).Usage(t.Context(), q); err == nil {
		t.Fatal("no error")
	}
	from.err = nil
	if points, err := (cachedAccount{from, m, demoNow}).Usage(t.Context(), q); err != nil || len(points) != 60 {
		t.Fatalf("got %d points, %v", len(points), err)
	}
}

// Different queries are cached separately, and the number of cached queries is limited.
func TestCacheIsBounded(t *testing.T) {
	from, m := &counting{}, new(usageCache)
	for i := range 3 * maxQueries {
		from.bytes = int64(i)
		q := store.Query{From: demoNow.Add(-time.Hour).Truncate(time.Minute), To: demoNow.Truncate(time.Minute), Step: time.Minute}
		q.Services = []string{fmt.Sprint(i)}
		points, err := cachedAccount{from, m, demoNow.Add(time.Duration(i) * time.Second)}.Usage(t.Context(), q)
		if err != nil || points[0].Egress != int64(i) {
			t.Fatalf("question %d: got %v, %v", i, points[0], err)
		}
	}
	if n := len(m.usage.kept); n != maxQueries {
		t.Errorf("%d queries are cached", n)
	}
}
