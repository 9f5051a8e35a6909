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

// directionTotal is the direction of quotas on the sum of ingress and egress.
const directionTotal = "total"

var quotaDirections = [...]string{string(store.Egress), string(store.Ingress), directionTotal}

// limits holds a number of bytes for each of quotaDirections. As an allocation, 0 means
// unlimited.
type limits [len(quotaDirections)]int64

// quotaSpec is the configuration of a quota with defaults applied. It is immutable.
type quotaSpec struct {
	key                  string // identifies the quota across reloads and gateways
	gateway, level, name string
	service, route, path string   // at most one is set, depending on level
	routes               []string // route names of the group

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

// spec returns the quota's spec for a scope.
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
	// The key excludes the limits, so that a changed limit does not report thresholds
	// again.
	q.key = strings.Join([]string{gateway, q.level, at.Name, p.Name, q.period, q.timeZone, p.Per}, "|")
	return q, err
}

// covers reports whether bytes under a key count towards the quota.
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

// used returns the counted bytes for each of quotaDirections.
func (q *quotaSpec) used(b store.Bytes) (used limits) {
	in, out := b.Ingress, b.Egress
	if q.countHeaders {
		in, out = in+b.IngressHeaders, out+b.EgressHeaders
	}
	return limits{out, in, in + out}
}

// limitsOf returns the limits of a consumer, or the quota's limits if it has none.
func (q *quotaSpec) limitsOf(consumer string) limits {
	if own, ok := q.consumers[consumer]; ok {
		return own
	}
	return q.limits
}

// sharedQuota is the state that the evaluator and the handlers of a quota share. It
// survives configuration reloads.
type sharedQuota struct {
	// The limit states, set while an allocation is used up, unless at_limit is notify.
	// Requests only read these.
	whole atomic.Pointer[limitState]
	each  atomic.Pointer[map[string]*limitState] // by consumer; nil if no allocation is used up

	members []*quotaMember // by configuration, the newest last. Guarded by quotaEvaluator.mu.
}

// quotaMember is a handler that uses a sharedQuota.
type quotaMember struct {
	spec   *quotaSpec
	config any // identifies the configuration of the handler
}

// limitState describes an allocation that is used up. It is immutable.
type limitState struct {
	until       time.Time // end of the period
	limit, used int64     // bytes in the direction with the largest share

	// The limiter of body bytes, shared by all requests, and the limited directions. rate
	// is nil unless at_limit is throttle.
	rate     *rate.Limiter
	down, up bool
}

// ofConsumer returns the limit state of a consumer, or nil if its allocation is not used
// up.
func (q *sharedQuota) ofConsumer(consumer string) *limitState {
	each := q.each.Load()
	if each == nil {
		return nil
	}
	return (*each)[store.CleanName(consumer)] // usage is stored under the cleaned name
}

// evaluate returns the limit state of an allocation. It returns nil if the allocation is
// not used up or at_limit is notify. before is the last state, whose rate limiter is
// reused.
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

// rateLimiter returns a limiter for bytes. It reuses the limiter of before if the rate is
// unchanged.
func rateLimiter(bytesPerSecond int64, before *limitState) *rate.Limiter {
	if before != nil && before.rate != nil && before.rate.Limit() == rate.Limit(bytesPerSecond) {
		return before.rate
	}
	// A burst of a quarter of a second keeps slow transfers steady.
	return rate.NewLimiter(rate.Limit(bytesPerSecond), int(min(max(bytesPerSecond/4, 512), 1<<20)))
}
