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

// directionTotal is both directions together.
const directionTotal = "total"

var quotaDirections = [...]string{string(store.Egress), string(store.Ingress), directionTotal}

// limits are how many bytes there are in each of quotaDirections, 0 for any number.
type limits [len(quotaDirections)]int64

// quotaSpec are what a quota says. They do not change.
type quotaSpec struct {
	key                  string // tells the quota from all others, at every reload and on every gateway
	gateway, level, name string
	service, route, path string   // of these, what the level has
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

// spec puts together what a quota says that stands in a place.
func (p *Quota) spec(at policy.Scope, gateway string) (*quotaSpec, error) {
	t := &quotaSpec{
		gateway: gateway, level: cmp.Or(at.Level, "gateway"), name: cmp.Or(p.Name, at.Name, gateway),
		period: cmp.Or(p.Period, defaultPeriod), timeZone: cmp.Or(p.TimeZone, defaultTimeZone),
		limits:      limits{int64(p.Egress), int64(p.Ingress), int64(p.Total)},
		perConsumer: p.Per == perConsumer, atLimit: cmp.Or(p.AtLimit, limitNotify), throttleRate: int64(p.ThrottleRate), countHeaders: p.CountHeaders,
		thresholds: slices.Clone(defaultThresholds),
	}
	switch t.level {
	case "backend":
		t.service = store.CleanName(at.Name)
	case "route":
		t.route = store.CleanName(at.Name)
	case "group":
		t.path, t.routes = at.Name, at.Routes
	}
	if len(p.Thresholds) > 0 {
		t.thresholds = slices.Clone(p.Thresholds)
		slices.Sort(t.thresholds)
		t.thresholds = slices.Compact(t.thresholds)
	}
	if len(p.Consumers) > 0 {
		t.consumers = make(map[string]limits, len(p.Consumers))
	}
	for _, c := range p.Consumers {
		own := limits{int64(c.Egress), int64(c.Ingress), int64(c.Total)}
		for i := range own {
			own[i] = cmp.Or(own[i], t.limits[i])
		}
		t.consumers[store.CleanName(c.Name)] = own
	}
	var err error
	t.calendar, err = parseCalendar(t.period, t.timeZone)
	// An allocation that is changed is still the same one: what has been told is not told
	// again.
	t.key = strings.Join([]string{gateway, t.level, at.Name, p.Name, t.period, t.timeZone, p.Per}, "|")
	return t, err
}

// covers reports whether bytes under a key are of the quota's place.
func (t *quotaSpec) covers(key store.Key) bool {
	switch t.level {
	case "backend":
		return key.Service == t.service
	case "route":
		return key.Route == t.route
	case "group":
		return slices.Contains(t.routes, key.Route)
	}
	return true
}

// used counts bytes in each of quotaDirections.
func (t *quotaSpec) used(b store.Bytes) (used limits) {
	in, out := b.Ingress, b.Egress
	if t.countHeaders {
		in, out = in+b.IngressHeaders, out+b.EgressHeaders
	}
	return limits{out, in, in + out}
}

// limitsOf are those of a consumer, or of all together if it is empty.
func (t *quotaSpec) limitsOf(consumer string) limits {
	if own, ok := t.consumers[consumer]; ok {
		return own
	}
	return t.limits
}

// account is what requests see of a quota, and what its handlers share. It outlives
// reloads.
type account struct {
	// What is used up, or nil. That is all that a request looks at.
	whole atomic.Pointer[limitState]
	each  atomic.Pointer[map[string]*limitState] // by consumer; nil if no consumer's is

	held []*holding // by configurations, the newest last; guarded by auditor.mu.
}

// holding is what one handler has of an account.
type holding struct {
	spec   *quotaSpec
	config any // identifies the configuration that it is of
}

// limitState is about an allocation that is used up. It does not change.
type limitState struct {
	until       time.Time // when its period ends
	limit, used int64     // in the direction of which most is used

	// What bodies are held to, and of which; all requests share it.
	pace     *rate.Limiter
	down, up bool
}

// ofConsumer returns that on a consumer.
func (a *account) ofConsumer(consumer string) *limitState {
	each := a.each.Load()
	if each == nil {
		return nil
	}
	return (*each)[store.CleanName(consumer)] // as the account has it
}

// evaluate returns the verdict on what has been used in a period. before is the one
// before it, whose pace goes on.
func (t *quotaSpec) evaluate(used, limits limits, start, end time.Time, before *limitState) *limitState {
	v := limitState{until: end}
	worst, rate := 0.0, t.throttleRate
	for i, limit := range limits {
		if limit == 0 || used[i] < limit {
			continue
		}
		if share := shareOf(used[i], limit); share > worst {
			worst, v.limit, v.used = share, limit, used[i]
		}
		v.down = v.down || quotaDirections[i] != string(store.Ingress)
		v.up = v.up || quotaDirections[i] != string(store.Egress)
		if steady := max(lowestRate, limit/int64(end.Sub(start)/time.Second)); t.throttleRate == 0 && (rate == 0 || steady < rate) {
			rate = steady
		}
	}
	if worst == 0 || t.atLimit == limitNotify {
		return nil
	}
	if t.atLimit == limitThrottle {
		v.pace = paceOf(rate, before)
	}
	return &v
}

// paceOf returns what holds bytes to so many per second: that of the verdict before,
// if it is the same.
func paceOf(bytesPerSecond int64, before *limitState) *rate.Limiter {
	if before != nil && before.pace != nil && before.pace.Limit() == rate.Limit(bytesPerSecond) {
		return before.pace
	}
	// In portions of a quarter of a second, so that what is slow is at least steady.
	return rate.NewLimiter(rate.Limit(bytesPerSecond), int(min(max(bytesPerSecond/4, 512), 1<<20)))
}
