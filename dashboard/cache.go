package dashboard

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/rgate/rgate/bandwidth/store"
)

// usageCache caches the points of past windows. A refresh of the page then only reads
// the latest windows. It is safe for concurrent use.
type usageCache struct {
	usage    queryCache[store.Point]
	requests queryCache[store.RequestPoint]
}

const (
	// finalAfter is the age at which a window is considered final. Points may still be
	// written later if the store was unavailable.
	finalAfter = 2 * time.Minute

	// expiresAfter is the age at which cached points expire, so that late points are
	// included.
	expiresAfter = 10 * time.Minute

	// maxQueries is the maximum number of cached queries.
	maxQueries = 32
)

// cachedAccount is an account that caches past windows.
type cachedAccount struct {
	account
	cache *usageCache
	now   time.Time
}

func (r cachedAccount) Usage(ctx context.Context, q store.Query) ([]store.Point, error) {
	return r.cache.usage.read(q, r.now, func(p *store.Point) time.Time { return p.Start }, func(q store.Query) ([]store.Point, error) {
		return r.account.Usage(ctx, q)
	})
}

func (r cachedAccount) Requests(ctx context.Context, q store.Query) ([]store.RequestPoint, error) {
	return r.cache.requests.read(q, r.now, func(p *store.RequestPoint) time.Time { return p.Start }, func(q store.Query) ([]store.RequestPoint, error) {
		return r.account.Requests(ctx, q)
	})
}

// queryCache caches query results.
type queryCache[P any] struct {
	mu   sync.Mutex
	kept map[string]*cachedPoints[P] // guarded by mu; the values are immutable
}

// cachedPoints holds the points of the windows from from to until.
type cachedPoints[P any] struct {
	since       time.Time // when the oldest of the points was read
	from, until time.Time
	points      []P // in ascending order
}

// read returns the points of a query. It queries only the windows that are not cached.
func (r *queryCache[P]) read(q store.Query, now time.Time, start func(*P) time.Time, query func(store.Query) ([]P, error)) ([]P, error) {
	q.From = q.From.Truncate(q.Step)
	key := fmt.Sprintf("%q %s %v %t", []any{q.Gateways, q.Services, q.Routes, q.Consumers}, q.Step, q.GroupBy, q.NoSketches)
	next := &cachedPoints[P]{since: now, from: q.From, until: now.Add(-finalAfter).Truncate(q.Step)}
	before := func(points []P, t time.Time) int {
		return sort.Search(len(points), func(i int) bool { return !start(&points[i]).Before(t) })
	}
	r.mu.Lock()
	last := r.kept[key]
	r.mu.Unlock()
	var known []P
	if last != nil && now.Sub(last.since) < expiresAfter && !last.from.After(q.From) && last.until.After(q.From) && !last.until.After(q.To) {
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

func (r *queryCache[P]) keep(key string, next *cachedPoints[P]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept == nil {
		r.kept = make(map[string]*cachedPoints[P])
	}
	r.kept[key] = next
	for len(r.kept) > maxQueries {
		oldest := key
		for other, one := range r.kept {
			if one.since.Before(r.kept[oldest].since) {
				oldest = other
			}
		}
		delete(r.kept, oldest)
	}
}
