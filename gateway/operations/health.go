package operations

import (
	"cmp"
	"slices"
	"time"

	"github.com/rgate/rgate/dockerupstreams"
	"github.com/rgate/rgate/internal/status"
)

// healthStatus is healthy, degraded or unhealthy.
type healthStatus string

const (
	healthy   healthStatus = "healthy"
	degraded  healthStatus = "degraded"
	unhealthy healthStatus = "unhealthy"
)

// health is the health report of a gateway.
type health struct {
	Status       healthStatus             `json:"status"`
	Timestamp    time.Time                `json:"timestamp"`
	Backends     map[string]backendHealth `json:"backends"`
	Dependencies []dependency             `json:"dependencies"`
}

type backendHealth struct {
	Status  healthStatus `json:"status"`
	Healthy int          `json:"healthy_instances"`
	Total   int          `json:"total_instances"`
}

// dependency is an external system that gateways or policies of the process require.
type dependency struct {
	Name   string       `json:"name"`
	Status healthStatus `json:"status"`
	Error  string       `json:"error,omitempty"`
}

// health returns the health report. The gateway is healthy if all of its backends and
// dependencies are healthy, unhealthy if all of its backends are unhealthy, else
// degraded.
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

// dependencies returns the Docker engines of the process, if any backend consists of
// containers, and the dependencies that policies of the process have published.
func (rep *Reporter) dependencies() []dependency {
	all := []dependency{}
	if slices.ContainsFunc(rep.Backends, func(b Backend) bool { return b.Service.HasContainers() }) {
		for _, e := range dockerupstreams.Engines() {
			d := dependency{Name: "docker " + e.Endpoint, Status: healthy, Error: e.Error}
			if !e.Connected {
				d.Status = unhealthy
			}
			all = append(all, d)
		}
	}
	for _, published := range status.Dependencies.All(status.Process{}) {
		d := dependency{Name: published.Name, Status: healthy, Error: published.Error}
		if !published.Up {
			d.Status = unhealthy
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b dependency) int { return cmp.Compare(a.Name, b.Name) })
	return slices.CompactFunc(all, func(a, b dependency) bool { return a.Name == b.Name })
}

// unavailable returns the names of the dependencies that are not healthy.
func (rep *Reporter) unavailable() (names []string) {
	for _, d := range rep.dependencies() {
		if d.Status != healthy {
			names = append(names, d.Name)
		}
	}
	return names
}

// unsynced returns the names of the backends whose containers are not yet known, although
// they can be.
func (rep *Reporter) unsynced() (names []string) {
	for _, b := range rep.Backends {
		if !b.Service.Synced() {
			names = append(names, b.Name)
		}
	}
	return names
}
