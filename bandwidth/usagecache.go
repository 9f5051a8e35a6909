package bandwidth

import (
	"context"
	"time"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/stats"
)

// usageCache reads the account of a period once for all quotas that have it.
type usageCache struct {
	ledger *store.Store
	now    time.Time
	read   map[periodKey]map[store.Key]store.Bytes
}

type periodKey struct {
	start, end int64
	consumers  bool
}

func newUsageCache(l *store.Store, now time.Time) *usageCache {
	return &usageCache{l, now, make(map[periodKey]map[store.Key]store.Bytes)}
}

// usage returns how much of each allocation has been used in a period, by consumer, or
// with an empty name for all together.
func (t *usageCache) usage(ctx context.Context, q *quotaSpec, start, end time.Time) (map[string]limits, error) {
	of := periodKey{start.Unix(), end.Unix(), q.perConsumer}
	all, ok := t.read[of]
	if !ok {
		until := t.now.Truncate(time.Minute).Add(time.Minute) // with the minute that is under way
		if until.After(end) {
			until = end
		}
		var err error
		if all, err = t.ledger.TotalsByKey(ctx, q.perConsumer, start, until); err != nil {
			return nil, err
		}
		t.read[of] = all
	}
	bytes := make(map[string]store.Bytes)
	if !q.perConsumer {
		bytes[""] = store.Bytes{}
	}
	for name := range q.consumers {
		bytes[name] = store.Bytes{}
	}
	for key, b := range all {
		if q.covers(key) && key.Consumer != stats.Other { // who is too many to be told apart has no account
			sum := bytes[key.Consumer]
			sum.Add(b)
			bytes[key.Consumer] = sum
		}
	}
	used := make(map[string]limits, len(bytes))
	for consumer, b := range bytes {
		used[consumer] = q.used(b)
	}
	return used, nil
}
