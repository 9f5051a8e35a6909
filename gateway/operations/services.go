package operations

import (
	"slices"
	"time"

	"github.com/rgate/rgate/internal/status"
)

// servicesReport is the report of all backends.
type servicesReport struct {
	Services  []service `json:"services"`
	Count     int       `json:"count"`
	Timestamp time.Time `json:"timestamp"`
}

type service struct {
	Name    string       `json:"name"`
	Status  healthStatus `json:"status"`
	Total   int          `json:"total_instances"`
	Healthy int          `json:"healthy_instances"`

	// The state of the policies on the backend. Omitted without such policies.
	CircuitBreaker []status.CircuitBreaker   `json:"circuit_breaker,omitempty"`
	Concurrency    []status.ConcurrencyLimit `json:"concurrency,omitempty"`

	// The number of requests in flight.
	InFlight int64 `json:"in_flight"`

	Instances []instance `json:"instances"`

	// The containers that are excluded on purpose, such as by a label, or have only some
	// of the labels.
	Excluded []excluded `json:"excluded,omitempty"`
}

// excluded is a container that is not an instance.
type excluded struct {
	Container string `json:"container"`
	Reason    string `json:"reason"`
}

// instance is a registered instance, a container or a static address.
type instance struct {
	Address   string       `json:"address,omitempty"`
	Container string       `json:"container,omitempty"`
	Status    healthStatus `json:"status"`
	InFlight  *int         `json:"in_flight,omitempty"` // only for static addresses
	Reason    string       `json:"reason,omitempty"`    // the reason why it receives no requests

	// The name and expiry of a registered instance.
	Registered string     `json:"registered,omitempty"`
	Expires    *time.Time `json:"expires,omitempty"`
}

// detailedServices is services with the excluded containers, for which it queries the
// engines.
func (rep *Reporter) detailedServices() servicesReport {
	all := rep.services()
	for i, b := range rep.Backends {
		for _, other := range b.Service.Excluded() {
			all.Services[i].Excluded = append(all.Services[i].Excluded, excluded{other.Container, other.Reason})
		}
	}
	return all
}

func (rep *Reporter) services() servicesReport {
	all := servicesReport{Services: make([]service, len(rep.Backends)), Count: len(rep.Backends), Timestamp: time.Now()}
	inFlight := rep.Stats.InFlight()
	for i, b := range rep.Backends {
		backend := status.Backend{Gateway: rep.Gateway, Name: b.Name}
		s := service{
			Name: b.Name, InFlight: inFlight[b.Name], Instances: rep.instances(b),
			CircuitBreaker: status.CircuitBreakers.All(backend), Concurrency: status.ConcurrencyLimits.All(backend),
		}
		s.Total = len(s.Instances)
		addresses := make([]string, len(s.Instances))
		for i, inst := range s.Instances {
			if addresses[i] = inst.Address; inst.Status == healthy {
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

// instances returns the registered instances and the containers or static addresses of
// a backend.
func (rep *Reporter) instances(b Backend) []instance {
	all := append([]instance{}, rep.registry(b).list(b.Name)...)
	registered := all
	for _, u := range b.Service.Upstreams() {
		if u.Registered {
			for i := range registered {
				if registered[i].Address == u.Address && registered[i].Status == healthy && u.Reason != "" {
					registered[i].Status, registered[i].Reason = unhealthy, u.Reason
				}
			}
			continue
		}
		inst := instance{Address: u.Address, Container: u.Container, Status: healthy, InFlight: u.InFlight, Reason: u.Reason}
		if u.Reason != "" {
			inst.Status = unhealthy
		}
		all = append(all, inst)
	}
	return all
}

// registry returns the registry for a backend, or nil if instances cannot register for
// it.
func (rep *Reporter) registry(b Backend) *Registry {
	if !b.Register {
		return nil
	}
	return rep.Registry
}
