package bandwidth

import (
	"context"
	"time"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/stats"
)

// usageCache reads the usage of a period once for all quotas with that period.
type usageCache struct {
	store *store.Store
	now   time.Time
	read  map[periodKey]map[store.Key]store.Bytes
}

type periodKey struct {
	start, end int64
	consumers  bool
}

func newUsageCache(s *store.Store, now time.Time) *usageCache {
	return &usageCache{s, now, make(map[periodKey]map[store.Key]store.Bytes)}
}

// usage returns the used bytes of a quota in a period, by consumer. Without `per:
// consumer`, the only key is the empty string.
func (c *usageCache) usage(ctx context.Context, q *quotaSpec, start, end time.Time) (map[string]limits, error) {
	of := periodKey{start.Unix(), end.Unix(), q.perConsumer}
	all, ok := c.read[of]
	if !ok {
		until := c.now.Truncate(time.Minute).Add(time.Minute) // include the current minute
		if until.After(end) {
			until = end
		}
		var err error
		if all, err = c.store.TotalsByKey(ctx, q.perConsumer, start, until); err != nil {
			return nil, err
		}
		c.read[of] = all
	}
	bytes := make(map[string]store.Bytes)
	if !q.perConsumer {
		bytes[""] = store.Bytes{}
	}
	for name := range q.consumers {
		bytes[name] = store.Bytes{}
	}
	for key, b := range all {
		if q.covers(key) && key.Consumer != stats.Other { // consumers above the cardinality limit share one row
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
