package bandwidth

import (
	"time"

	"github.com/rgate/rgate/bandwidth/notify"
)

// QuotaState is the usage of an allocation in the current period, in one direction. Quotas
// are published as its JSON.
type QuotaState struct {
	Name     string `json:"name"`
	Level    string `json:"level"` // `gateway`, `group`, `route`, `backend`
	Service  string `json:"service,omitempty"`
	Route    string `json:"route,omitempty"`
	Group    string `json:"group,omitempty"`    // path of the group
	Consumer string `json:"consumer,omitempty"` // if each has an allocation of its own

	Direction string        `json:"direction"` // `ingress`, `egress`, `total`
	Allocated int64         `json:"allocated"` // bytes
	Used      int64         `json:"used"`
	Share     float64       `json:"share"` // in percent
	Period    notify.Period `json:"period"`
	forecast
	AtLimit    string           `json:"at_limit"`
	State      string           `json:"state"`
	Thresholds []ThresholdState `json:"thresholds"`

	period string // as in the configuration
	named  bool   // whether the configuration names the consumer, so that metrics include it
}

// The states of a quota.
const (
	QuotaOK        = "ok"
	QuotaOver      = "over" // with at_limit notify
	QuotaThrottled = "throttled"
	QuotaBlocked   = "blocked"
)

// ThresholdState is when a threshold was reached, and how far its messages have got.
type ThresholdState struct {
	Percent    int                    `json:"percent"`
	CrossedAt  *time.Time             `json:"crossed_at"`
	Deliveries []notify.DeliveryState `json:"deliveries"`
}

// stateOf returns the state of an allocation.
func (q *quotaSpec) stateOf(used, limit int64) string {
	switch {
	case used < limit:
		return QuotaOK
	case q.atLimit == limitThrottle:
		return QuotaThrottled
	case q.atLimit == limitBlock:
		return QuotaBlocked
	default:
		return QuotaOver
	}
}

// stateIn returns the state of an allocation in a period.
func (q *quotaSpec) stateIn(start, end time.Time, consumer string, direction int, used, limit int64, now time.Time) QuotaState {
	_, named := q.consumers[consumer]
	return QuotaState{
		Name: q.name, Level: q.level, Service: q.service, Route: q.route, Group: q.path, Consumer: consumer,
		Direction: quotaDirections[direction], Allocated: limit, Used: used, Share: shareOf(used, limit),
		Period:   notify.Period{Name: q.calendar.name(start), Start: start, End: end, TimeZone: q.timeZone},
		forecast: forecastOf(used, limit, start, end, now), AtLimit: q.atLimit, State: q.stateOf(used, limit),
		period: q.period, named: named || consumer == "",
	}
}

// alert returns the message about the thresholds that an allocation has reached.
func (s *QuotaState) alert(gateway string, crossed []int, now time.Time) notify.Alert {
	return notify.Alert{
		Event: notify.EventThreshold, Gateway: gateway, Name: s.Name, Level: s.Level,
		Service: s.Service, Route: s.Route, Group: s.Group, Consumer: s.Consumer,
		Direction: s.Direction, Threshold: crossed[len(crossed)-1], Crossed: crossed,
		Used: s.Used, Allocated: s.Allocated, Share: s.Share, Period: s.Period,
		AtEnd: s.AtEnd, FullAt: s.FullAt, AtLimit: s.AtLimit, At: now,
	}
}

// thresholdStates returns the states of an allocation's thresholds.
func (v *evaluated) thresholdStates(events notify.Events) []ThresholdState {
	states := make([]ThresholdState, len(v.spec.thresholds))
	for i, percent := range v.spec.thresholds {
		states[i] = ThresholdState{Percent: percent, Deliveries: []notify.DeliveryState{}}
		if event, ok := events[v.allocation()][percent]; ok {
			at := event.At.In(v.spec.zone)
			states[i].CrossedAt = &at
			states[i].Deliveries = append(states[i].Deliveries, event.Deliveries...)
		}
	}
	return states
}
