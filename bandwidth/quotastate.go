package bandwidth

import "time"

// QuotaState is how much of an allocation has been used in the current period, in one
// direction. It is what a quota publishes, as JSON.
type QuotaState struct {
	Name     string `json:"name"`
	Level    string `json:"level"` // `gateway`, `group`, `route`, `backend`
	Service  string `json:"service,omitempty"`
	Route    string `json:"route,omitempty"`
	Group    string `json:"group,omitempty"`    // its path
	Consumer string `json:"consumer,omitempty"` // whose it is, if each has its own

	Direction string     `json:"direction"` // `ingress`, `egress`, `total`
	Allocated int64      `json:"allocated"` // bytes
	Used      int64      `json:"used"`
	Share     float64    `json:"share"` // in percent
	Period    periodSpan `json:"period"`
	forecast
	AtLimit    string           `json:"at_limit"`
	State      string           `json:"state"`
	Thresholds []ThresholdState `json:"thresholds"`

	period string // as the configuration says it
	named  bool   // in the configuration, so that metrics may have it
}

// The states of a quota.
const (
	QuotaOK        = "ok"
	QuotaOver      = "over" // and only told
	QuotaThrottled = "throttled"
	QuotaBlocked   = "blocked"
)

// ThresholdState says whether a threshold has been reached, and who knows.
type ThresholdState struct {
	Percent    int             `json:"percent"`
	CrossedAt  *time.Time      `json:"crossed_at"`
	Deliveries []DeliveryState `json:"deliveries"`
}

// DeliveryState is how far a message has come.
type DeliveryState struct {
	Channel  string `json:"channel"` // `mail`, `webhook`
	State    string `json:"state"`   // `pending`, `sent`, `failed`
	Attempts int    `json:"attempts"`
	Error    string `json:"error,omitempty"` // of the last one
}

// stateOf is the state of an allocation.
func (t *quotaSpec) stateOf(used, limit int64) string {
	switch {
	case used < limit:
		return QuotaOK
	case t.atLimit == limitThrottle:
		return QuotaThrottled
	case t.atLimit == limitBlock:
		return QuotaBlocked
	default:
		return QuotaOver
	}
}

// stateIn describes an allocation in a period.
func (t *quotaSpec) stateIn(start, end time.Time, consumer string, direction int, used, limit int64, now time.Time) QuotaState {
	_, named := t.consumers[consumer]
	return QuotaState{
		Name: t.name, Level: t.level, Service: t.service, Route: t.route, Group: t.path, Consumer: consumer,
		Direction: quotaDirections[direction], Allocated: limit, Used: used, Share: shareOf(used, limit),
		Period:   periodSpan{t.calendar.name(start), start, end, t.timeZone},
		forecast: forecastOf(used, limit, start, end, now), AtLimit: t.atLimit, State: t.stateOf(used, limit),
		period: t.period, named: named || consumer == "",
	}
}

// alert is the message about the thresholds that an allocation has reached.
func (s *QuotaState) alert(id, gateway string, crossed []int, now time.Time) alert {
	return alert{
		ID: id, Event: eventThreshold, Gateway: gateway, Name: s.Name, Level: s.Level,
		Service: s.Service, Route: s.Route, Group: s.Group, Consumer: s.Consumer,
		Direction: s.Direction, Threshold: crossed[len(crossed)-1], Crossed: crossed,
		Used: s.Used, Allocated: s.Allocated, Share: s.Share, Period: s.Period, forecast: s.forecast, AtLimit: s.AtLimit, At: now,
	}
}
