package dashboard

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/rgate/rgate/bandwidth"
)

// memory is what the page has read of an account about windows that are over. A page
// that refreshes itself then reads the last windows alone. It is safe for concurrent
// use.
type memory struct {
	usage    remembered[bandwidth.Point]
	requests remembered[bandwidth.RequestPoint]
}

const (
	// A window that has been over for this long does not change any more, unless a
	// gateway could not write before.
	settles = 2 * time.Minute

	// What such a gateway adds is seen after this long.
	forgets = 10 * time.Minute

	// How many queries are remembered.
	maxRemembered = 32
)

// remembering is an account of which the past is remembered.
type remembering struct {
	account
	memory *memory
	now    time.Time
}

func (r remembering) Usage(ctx context.Context, q bandwidth.Query) ([]bandwidth.Point, error) {
	return r.memory.usage.read(q, r.now, func(p *bandwidth.Point) time.Time { return p.Start }, func(q bandwidth.Query) ([]bandwidth.Point, error) {
		return r.account.Usage(ctx, q)
	})
}

func (r remembering) Requests(ctx context.Context, q bandwidth.Query) ([]bandwidth.RequestPoint, error) {
	return r.memory.requests.read(q, r.now, func(p *bandwidth.RequestPoint) time.Time { return p.Start }, func(q bandwidth.Query) ([]bandwidth.RequestPoint, error) {
		return r.account.Requests(ctx, q)
	})
}

// remembered are the answers to some queries.
type remembered[P any] struct {
	mu   sync.Mutex
	kept map[string]*answer[P] // guarded by mu; what they point to does not change
}

// answer are the points of the windows from one time until another.
type answer[P any] struct {
	since       time.Time // when the first of them was read
	from, until time.Time
	points      []P // ascending
}

// read answers a query by what is remembered, and reads the rest.
func (r *remembered[P]) read(q bandwidth.Query, now time.Time, start func(*P) time.Time, query func(bandwidth.Query) ([]P, error)) ([]P, error) {
	q.From = q.From.Truncate(q.Step)
	key := fmt.Sprintf("%q %s %v %t", []any{q.Gateways, q.Services, q.Routes, q.Consumers}, q.Step, q.GroupBy, q.NoSketches)
	next := &answer[P]{since: now, from: q.From, until: now.Add(-settles).Truncate(q.Step)}
	before := func(points []P, t time.Time) int {
		return sort.Search(len(points), func(i int) bool { return !start(&points[i]).Before(t) })
	}
	r.mu.Lock()
	last := r.kept[key]
	r.mu.Unlock()
	var known []P
	if last != nil && now.Sub(last.since) < forgets && !last.from.After(q.From) && last.until.After(q.From) && !last.until.After(q.To) {
		next.since = last.since
		known = last.points[before(last.points, q.From):]
		q.From = last.until
	}
	fresh, err := query(q)
	if err != nil {
		return nil, err
	}
	points := slices.Concat(known, fresh)
	next.points = slices.Clip(points[:before(points, next.until)])
	r.keep(key, next)
	return points, nil
}

func (r *remembered[P]) keep(key string, next *answer[P]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept == nil {
		r.kept = make(map[string]*answer[P])
	}
	r.kept[key] = next
	for len(r.kept) > maxRemembered {
		oldest := key
		for other, one := range r.kept {
			if one.since.Before(r.kept[oldest].since) {
				oldest = other
			}
		}
		delete(r.kept, oldest)
	}
}
