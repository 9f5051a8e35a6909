package bandwidth

import (
	"time"

	"github.com/rgate/rgate/bandwidth/notify"
)

// QuotaState is the usage of an allocation in the current period, in one direction. Its
// JSON is published as the quota's status.
type QuotaState struct {
	Name     string `json:"name"`
	Level    string `json:"level"` // `gateway`, `group`, `route`, `backend`
	Service  string `json:"service,omitempty"`
	Route    string `json:"route,omitempty"`
	Group    string `json:"group,omitempty"`    // path of the group
	Consumer string `json:"consumer,omitempty"` // set if consumers have separate allocations

	Direction string        `json:"direction"` // `ingress`, `egress`, `total`
	Allocated int64         `json:"allocated"` // bytes
	Used      int64         `json:"used"`
	Share     float64       `json:"share"` // in percent
	Period    notify.Period `json:"period"`
	notify.Forecast
	AtLimit    string           `json:"at_limit"`
	State      string           `json:"state"`
	Thresholds []ThresholdState `json:"thresholds"`

	period string // as configured
	named  bool   // whether the consumer is configured and included in metrics
}

// The values of QuotaState.State.
const (
	QuotaOK        = "ok"
	QuotaOver      = "over" // used up, with at_limit notify
	QuotaThrottled = "throttled"
	QuotaBlocked   = "blocked"
)

// ThresholdState is the time at which a threshold was reached, and the state of its
// messages.
type ThresholdState struct {
	Percent    int                    `json:"percent"`
	CrossedAt  *time.Time             `json:"crossed_at"`
	Deliveries []notify.DeliveryState `json:"deliveries"`
}

// stateOf returns the value of QuotaState.State.
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

// stateIn returns the QuotaState of an allocation in a period.
func (q *quotaSpec) stateIn(start, end time.Time, consumer string, direction int, used, limit int64, now time.Time) QuotaState {
	_, named := q.consumers[consumer]
	return QuotaState{
		Name: q.name, Level: q.level, Service: q.service, Route: q.route, Group: q.path, Consumer: consumer,
		Direction: quotaDirections[direction], Allocated: limit, Used: used, Share: shareOf(used, limit),
		Period:   notify.Period{Name: q.calendar.name(start), Start: start, End: end, TimeZone: q.timeZone},
		Forecast: forecastOf(used, limit, start, end, now), AtLimit: q.atLimit, State: q.stateOf(used, limit),
		period: q.period, named: named || consumer == "",
	}
}

// alert returns an alert for the reached thresholds.
func (s *QuotaState) alert(gateway string, crossed []int, now time.Time) notify.Alert {
	return notify.Alert{
		Event: notify.EventThreshold, Gateway: gateway, Name: s.Name, Level: s.Level,
		Service: s.Service, Route: s.Route, Group: s.Group, Consumer: s.Consumer,
		Direction: s.Direction, Threshold: crossed[len(crossed)-1], Crossed: crossed,
		Used: s.Used, Allocated: s.Allocated, Share: s.Share, Period: s.Period,
		Forecast: s.Forecast, AtLimit: s.AtLimit, At: now,
	}
}

// thresholdStates returns the states of an allocation's thresholds.
func (v *evaluated) thresholdStates(events notify.Events) []ThresholdState {
	recorded := events[v.allocation()]
	states := make([]ThresholdState, len(v.spec.thresholds))
	for i, percent := range v.spec.thresholds {
		states[i] = ThresholdState{Percent: percent, Deliveries: []notify.DeliveryState{}}
		if event, ok := recorded[percent]; ok {
			at := event.At.In(v.spec.zone)
			states[i].CrossedAt = &at
			states[i].Deliveries = append(states[i].Deliveries, event.Deliveries...)
		}
	}
	return states
}
