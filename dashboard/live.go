package dashboard

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/stats"
)

// live holds the current state of the gateway.
type live struct {
	backends     []backend // least healthy first
	quotas       []quota   // highest usage first
	dependencies []status.Dependency
	errors       []stats.LogEntry // newest first
	responses    []stats.LogEntry
}

// backend is the published state of a backend.
type backend struct {
	Name      string     `json:"name"`
	Status    string     `json:"status"` // healthy, degraded, unhealthy
	Total     int        `json:"total_instances"`
	Healthy   int        `json:"healthy_instances"`
	InFlight  int64      `json:"in_flight"`
	Instances []instance `json:"instances"`
	Excluded  []instance `json:"excluded"`
	Breakers  []struct {
		State string `json:"state"`
	} `json:"circuit_breaker"`
	Limits []struct {
		Max    int `json:"max"`
		Queued int `json:"queued"`
	} `json:"concurrency"`
}

// instance is the state of a container or of a static address.
type instance struct {
	Address   string `json:"address"`
	Container string `json:"container"`
	Status    string `json:"status"`
	InFlight  *int   `json:"in_flight"`
	Reason    string `json:"reason"`
}

// quota is the published state of one direction of a quota.
type quota struct {
	Name      string `json:"name"`
	Service   string `json:"service"`
	Route     string `json:"route"`
	Group     string `json:"group"`
	Consumer  string `json:"consumer"`
	Direction string `json:"direction"` // ingress, egress, total
	Allocated int64  `json:"allocated"`
	Used      int64  `json:"used"`
	Period    struct {
		End time.Time `json:"end"`
	} `json:"period"`
	Forecast   *int64      `json:"forecast"` // usage at the end of the period; nil: too early to forecast
	FullAt     *time.Time  `json:"full_at"`
	AtLimit    string      `json:"at_limit"` // notify, throttle, block
	State      string      `json:"state"`    // ok, over, throttled, blocked
	Thresholds []threshold `json:"thresholds"`
}

type threshold struct {
	Percent    float64    `json:"percent"`
	CrossedAt  *time.Time `json:"crossed_at"`
	Deliveries []struct {
		Channel string `json:"channel"`
		State   string `json:"state"` // pending, sent, failed
		Error   string `json:"error"`
	} `json:"deliveries"`
}

func (q *quota) share() float64 { return ratio(float64(q.Used), float64(q.Allocated)) }

// requestLog is the interface of the request log that the page uses.
type requestLog interface {
	Report(stats.LogQuery) stats.LogReport
}

// readLive returns the current state of a gateway. log may be nil.
func readLive(gateway string, log requestLog, params pageParams) (l live) {
	for _, report := range status.Decode[struct{ Services []backend }](status.Services.All(gateway)) {
		for _, b := range report.Services {
			// During a reload, the old and the new configuration publish the same
			// backends.
			known := slices.ContainsFunc(l.backends, func(other backend) bool { return other.Name == b.Name })
			if !known && (params.service == "" || params.service == b.Name) {
				l.backends = append(l.backends, b)
			}
		}
	}
	slices.SortStableFunc(l.backends, func(a, b backend) int {
		return cmp.Or(cmp.Compare(severity(b.Status), severity(a.Status)), strings.Compare(a.Name, b.Name))
	})
	for _, q := range slices.Concat(status.Decode[[]quota](status.Quotas.All(gateway))...) {
		if q.Allocated > 0 && (q.Service == "" || params.service == "" || params.service == q.Service) && (q.Route == "" || params.route == "" || params.route == q.Route) {
			l.quotas = append(l.quotas, q)
		}
	}
	slices.SortStableFunc(l.quotas, func(a, b quota) int {
		return cmp.Or(cmp.Compare(b.share(), a.share()), strings.Compare(a.Name, b.Name), strings.Compare(a.Direction, b.Direction))
	})
	l.dependencies = status.Dependencies.All(status.Process{})
	slices.SortFunc(l.dependencies, func(a, b status.Dependency) int {
		if a.Up != b.Up && a.Up {
			return 1 // unavailable dependencies come first
		} else if a.Up != b.Up {
			return -1
		}
		return strings.Compare(a.Name, b.Name)
	})
	l.dependencies = slices.CompactFunc(l.dependencies, func(a, b status.Dependency) bool { return a == b })
	if log != nil {
		report := log.Report(stats.LogQuery{Service: params.service})
		l.responses, l.errors = report.Responses, report.Errors
		l.errors = slices.DeleteFunc(l.errors, func(e stats.LogEntry) bool { return !params.concerns(e.Service, e.Route) })
	}
	return l
}

func severity(status string) int {
	return slices.Index([]string{"healthy", "degraded", "unhealthy"}, status)
}

// lastUsed returns the time of each service's last response in the request log.
func (l *live) lastUsed() map[string]time.Time {
	last := make(map[string]time.Time)
	for _, e := range l.responses {
		if last[e.Service].Before(e.Time) {
			last[e.Service] = e.Time
		}
	}
	return last
}
