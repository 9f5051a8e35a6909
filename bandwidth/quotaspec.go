package bandwidth

import (
	"cmp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/policy"
)

// directionTotal is the sum of both directions.
const directionTotal = "total"

var quotaDirections = [...]string{string(store.Egress), string(store.Ingress), directionTotal}

// limits are the allocated bytes in each of quotaDirections; 0 means unlimited.
type limits [len(quotaDirections)]int64

// quotaSpec is the configuration of a quota, with defaults filled in. It does not change.
type quotaSpec struct {
	key                  string // identifies the quota across reloads and gateways
	gateway, level, name string
	service, route, path string   // at most one is set, by level
	routes               []string // of the group

	calendar
	period, timeZone string

	limits       limits
	perConsumer  bool
	consumers    map[string]limits
	thresholds   []int
	atLimit      string
	throttleRate int64
	countHeaders bool
}

// spec returns the spec of the quota in its scope.
func (p *Quota) spec(at policy.Scope, gateway string) (*quotaSpec, error) {
	q := &quotaSpec{
		gateway: gateway, level: cmp.Or(at.Level, "gateway"), name: cmp.Or(p.Name, at.Name, gateway),
		period: cmp.Or(p.Period, defaultPeriod), timeZone: cmp.Or(p.TimeZone, defaultTimeZone),
		limits:      limits{int64(p.Egress), int64(p.Ingress), int64(p.Total)},
		perConsumer: p.Per == perConsumer, atLimit: cmp.Or(p.AtLimit, limitNotify), throttleRate: int64(p.ThrottleRate), countHeaders: p.CountHeaders,
		thresholds: slices.Clone(defaultThresholds),
	}
	switch q.level {
	case "backend":
		q.service = store.CleanName(at.Name)
	case "route":
		q.route = store.CleanName(at.Name)
	case "group":
		q.path, q.routes = at.Name, at.Routes
	}
	if len(p.Thresholds) > 0 {
		q.thresholds = slices.Clone(p.Thresholds)
		slices.Sort(q.thresholds)
		q.thresholds = slices.Compact(q.thresholds)
	}
	if len(p.Consumers) > 0 {
		q.consumers = make(map[string]limits, len(p.Consumers))
	}
	for _, c := range p.Consumers {
		own := limits{int64(c.Egress), int64(c.Ingress), int64(c.Total)}
		for i := range own {
			own[i] = cmp.Or(own[i], q.limits[i])
		}
		q.consumers[store.CleanName(c.Name)] = own
	}
	var err error
	q.calendar, err = parseCalendar(q.period, q.timeZone)
	// The allocated bytes are not part of the key: if they change, thresholds that have been
	// reported are not reported again.
	q.key = strings.Join([]string{gateway, q.level, at.Name, p.Name, q.period, q.timeZone, p.Per}, "|")
	return q, err
}

// covers reports whether the bytes of a key count towards the quota.
func (q *quotaSpec) covers(key store.Key) bool {
	switch q.level {
	case "backend":
		return key.Service == q.service
	case "route":
		return key.Route == q.route
	case "group":
		return slices.Contains(q.routes, key.Route)
	}
	return true
}

// used returns the bytes that count in each of quotaDirections.
func (q *quotaSpec) used(b store.Bytes) (used limits) {
	in, out := b.Ingress, b.Egress
	if q.countHeaders {
		in, out = in+b.IngressHeaders, out+b.EgressHeaders
	}
	return limits{out, in, in + out}
}

// limitsOf returns the limits of a consumer, or those of the quota if it is empty.
func (q *quotaSpec) limitsOf(consumer string) limits {
	if own, ok := q.consumers[consumer]; ok {
		return own
	}
	return q.limits
}

// sharedQuota is what the evaluator and the handlers of a quota share. It outlives reloads.
type sharedQuota struct {
	// Set while an allocation is used up. Requests read nothing else.
	whole atomic.Pointer[limitState]
	each  atomic.Pointer[map[string]*limitState] // by consumer; nil if none is

	members []*quotaMember // by configurations, the newest last; guarded by quotaEvaluator.mu.
}

// quotaMember is a handler that uses a sharedQuota.
type quotaMember struct {
	spec   *quotaSpec
	config any // identifies the configuration of the handler
}

// limitState describes an allocation that is used up. It does not change.
type limitState struct {
	until       time.Time // the end of the period
	limit, used int64     // in the direction with the largest share

	// The rate of bodies, shared by all requests, and the directions that it applies to.
	rate     *rate.Limiter
	down, up bool
}

// ofConsumer returns the state of a consumer's allocation, nil if it is not used up.
func (q *sharedQuota) ofConsumer(consumer string) *limitState {
	each := q.each.Load()
	if each == nil {
		return nil
	}
	return (*each)[store.CleanName(consumer)] // the name that usage is stored under
}

// evaluate returns the state of an allocation, nil if it is not used up or if nothing
// happens at the limit. It takes the rate limiter of before, the last state.
func (q *quotaSpec) evaluate(used, limits limits, start, end time.Time, before *limitState) *limitState {
	v := limitState{until: end}
	worst, rate := 0.0, q.throttleRate
	for i, limit := range limits {
		if limit == 0 || used[i] < limit {
			continue
		}
		if share := shareOf(used[i], limit); share > worst {
			worst, v.limit, v.used = share, limit, used[i]
		}
		v.down = v.down || quotaDirections[i] != string(store.Ingress)
		v.up = v.up || quotaDirections[i] != string(store.Egress)
		if steady := max(lowestRate, limit/int64(end.Sub(start)/time.Second)); q.throttleRate == 0 && (rate == 0 || steady < rate) {
			rate = steady
		}
	}
	if worst == 0 || q.atLimit == limitNotify {
		return nil
	}
	if q.atLimit == limitThrottle {
		v.rate = rateLimiter(rate, before)
	}
	return &v
}

// rateLimiter returns a limiter of bytes: that of before, if it has the same rate.
func rateLimiter(bytesPerSecond int64, before *limitState) *rate.Limiter {
	if before != nil && before.rate != nil && before.rate.Limit() == rate.Limit(bytesPerSecond) {
		return before.rate
	}
	// With bursts of a quarter of a second, slow transfers are steady.
	return rate.NewLimiter(rate.Limit(bytesPerSecond), int(min(max(bytesPerSecond/4, 512), 1<<20)))
}
