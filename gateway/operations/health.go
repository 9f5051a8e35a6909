package operations

import (
	"cmp"
	"slices"
	"time"

	"github.com/rgate/rgate/dockerupstreams"
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

// condition is how something is.
type condition string

const (
	healthy   condition = "healthy"   // all of it
	degraded  condition = "degraded"  // some of it
	unhealthy condition = "unhealthy" // none of it
)

// health is how the gateway is, and what it depends on.
type health struct {
	Status       condition                `json:"status"`
	Timestamp    time.Time                `json:"timestamp"`
	Backends     map[string]backendHealth `json:"backends"`
	Dependencies []dependency             `json:"dependencies"`
}

type backendHealth struct {
	Status  condition `json:"status"`
	Healthy int       `json:"healthy_instances"`
	Total   int       `json:"total_instances"`
}

// dependency is something outside that the gateway or a policy of it needs.
type dependency struct {
	Name   string    `json:"name"`
	Status condition `json:"status"`
	Error  string    `json:"error,omitempty"`
}

// health puts together how the gateway is: healthy if all of its backends and all
// that it depends on are, unhealthy if no backend can take a request.
func (rep *Reporter) health() health {
	h := health{Status: healthy, Timestamp: time.Now(), Backends: make(map[string]backendHealth), Dependencies: rep.dependencies()}
	down := 0
	for _, s := range rep.services().Services {
		h.Backends[s.Name] = backendHealth{s.Status, s.Healthy, s.Total}
		if s.Status != healthy {
			h.Status = degraded
		}
		if s.Status == unhealthy {
			down++
		}
	}
	for _, d := range h.Dependencies {
		if d.Status != healthy {
			h.Status = degraded
		}
	}
	if down > 0 && down == len(h.Backends) {
		h.Status = unhealthy
	}
	return h
}

// dependencies are the Docker engines that backends come from, and what policies
// say that they need.
func (rep *Reporter) dependencies() []dependency {
	all := []dependency{}
	if slices.ContainsFunc(rep.Backends, func(b Backend) bool { return b.Upstreams.HasContainers() }) {
		for _, e := range dockerupstreams.Status() {
			d := dependency{Name: "docker " + e.Endpoint, Status: healthy, Error: e.Error}
			if !e.Connected {
				d.Status = unhealthy
			}
			all = append(all, d)
		}
	}
	for _, one := range status.Dependencies.All(status.Process{}) {
		d := dependency{Name: one.Name, Status: healthy, Error: one.Error}
		if !one.Up {
			d.Status = unhealthy
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b dependency) int { return cmp.Compare(a.Name, b.Name) })
	return slices.CompactFunc(all, func(a, b dependency) bool { return a.Name == b.Name })
}

// waitsFor lists the backends whose containers are not known yet.
func (rep *Reporter) waitsFor() (names []string) {
	for _, b := range rep.Backends {
		if !b.Upstreams.Synced() {
			names = append(names, b.Name)
		}
	}
	return names
}

// services is what is known of all backends.
type services struct {
	Services  []serviceReport `json:"services"`
	Count     int             `json:"count"`
	Timestamp time.Time       `json:"timestamp"`
}

type serviceReport struct {
	Name    string    `json:"name"`
	Status  condition `json:"status"`
	Total   int       `json:"total_instances"`
	Healthy int       `json:"healthy_instances"`

	// What policies on the backend tell, absent without them.
	CircuitBreaker []status.CircuitBreaker   `json:"circuit_breaker,omitempty"`
	Concurrency    []status.ConcurrencyLimit `json:"concurrency,omitempty"`

	// Requests that have begun and not ended.
	InFlight int64 `json:"in_flight"`

	Instances []instance `json:"instances"`
}

// instance is a container or a static address.
type instance struct {
	Address   string    `json:"address,omitempty"`
	Container string    `json:"container,omitempty"`
	Status    condition `json:"status"`
	InFlight  *int      `json:"in_flight,omitempty"` // known of static addresses
	Reason    string    `json:"reason,omitempty"`    // why it gets no requests

	// Of one that has registered itself: its name there, and until when.
	Registered string     `json:"registered,omitempty"`
	Expires    *time.Time `json:"expires,omitempty"`
}

func (rep *Reporter) services() services {
	all := services{Services: make([]serviceReport, len(rep.Backends)), Count: len(rep.Backends), Timestamp: time.Now()}
	inFlight := rep.Stats.InFlight()
	for i, b := range rep.Backends {
		backend := status.Backend{Gateway: rep.Gateway, Name: b.Name}
		s := serviceReport{
			Name: b.Name, InFlight: inFlight[b.Name], Instances: rep.instances(b),
			CircuitBreaker: status.CircuitBreakers.All(backend), Concurrency: status.ConcurrencyLimits.All(backend),
		}
		s.Total = len(s.Instances)
		addresses := make([]string, len(s.Instances))
		for i, one := range s.Instances {
			if addresses[i] = one.Address; one.Status == healthy {
				s.Healthy++
			}
		}
		switch {
		case s.Healthy == 0 || slices.ContainsFunc(s.CircuitBreaker, func(b status.CircuitBreaker) bool { return b.IsOpen() }):
			s.Status = unhealthy
		case s.Healthy < s.Total || slices.ContainsFunc(s.CircuitBreaker, func(b status.CircuitBreaker) bool { return b.Impairs(addresses) }):
			s.Status = degraded
		default:
			s.Status = healthy
		}
		all.Services[i] = s
	}
	return all
}

// instances lists where a backend runs, and what does not get requests and why.
func (rep *Reporter) instances(b Backend) []instance {
	all := append([]instance{}, rep.registry(b).list(b.Name)...)
	for _, u := range b.Upstreams.List() {
		one := instance{Address: u.Address, Container: u.Container, Status: healthy, InFlight: u.InFlight, Reason: u.Reason}
		if u.Reason != "" {
			one.Status = unhealthy
		}
		all = append(all, one)
	}
	return all
}

// registry returns the registry with a backend's instances, or nil if none may register.
func (rep *Reporter) registry(b Backend) *Registry {
	if !b.Register {
		return nil
	}
	return rep.Registry
}

// totals are the gateway's statistics in the form of an operator's overview.
type totals struct {
	Requests      uint64                   `json:"total_requests"`
	Successful    uint64                   `json:"successful_requests"`
	Failed        uint64                   `json:"failed_requests"`
	SuccessRate   float64                  `json:"success_rate"`
	RateLimitHits uint64                   `json:"rate_limit_hits"`
	CacheHits     uint64                   `json:"cache_hits"`
	Refused       map[string]uint64        `json:"refused_requests"` // by policy
	Backends      map[string]backendTotals `json:"backends"`
}

type backendTotals struct {
	Requests  uint64  `json:"requests"`
	AverageMS float64 `json:"average_time_ms"`
	ErrorRate float64 `json:"error_rate"`
}

func (rep *Reporter) figures() totals {
	report := rep.Stats.Report(stats.Query{ByBackend: true})
	t := totals{
		Successful: report.Requests.Success, Failed: report.Requests.Error,
		RateLimitHits: policy.RefusalCount("rate_limit"), Refused: policy.RefusalsByPolicy(),
		Backends: make(map[string]backendTotals, len(report.ByBackend)),
	}
	t.Requests, t.SuccessRate = summary(report.Requests)
	for _, hits := range status.CacheHits.All(rep.Gateway) {
		t.CacheHits += hits
	}
	for name, figures := range report.ByBackend {
		n, success := summary(figures.Requests)
		b := backendTotals{Requests: n, AverageMS: figures.Latency.Average}
		if n > 0 {
			b.ErrorRate = 1 - success
		}
		t.Backends[name] = b
	}
	return t
}

// summary is how many requests there were, and the share of the successful ones.
func summary(r stats.Requests) (n uint64, success float64) {
	if n = r.Success + r.Error; n > 0 {
		success = float64(r.Success) / float64(n)
	}
	return n, success
}
