package stats

import (
	"fmt"
	"time"
)

// Figures are the statistics of the requests of a span of time.
type Figures struct {
	Requests Requests `json:"requests_count"`
	Latency  Latency  `json:"latency_ms"`

	// The bytes transferred, if requested.
	Bandwidth *Traffic `json:"bandwidth_bytes,omitempty"`
}

// Requests are the numbers of requests by the status of their response.
type Requests struct {
	// Statuses from 200 to 399.
	Success uint64 `json:"success"`

	// Statuses of 400 and above.
	Error uint64 `json:"error"`
}

// Latency is in milliseconds with up to three decimals, and 0 if there were no
// requests. It is the time until the handler returned, which includes the body.
type Latency struct {
	// The mean, from an exact sum.
	Average float64 `json:"average"`

	// Within 1 % of the exact 95th percentile.
	P95 float64 `json:"p95"`

	// Within 1 % of the exact 99th percentile.
	P99 float64 `json:"p99"`
}

func (t *counts) figures() Figures {
	f := Figures{Requests: t.requests()}
	if n := f.Requests.Success + f.Requests.Error; n > 0 {
		f.Latency = Latency{
			Average: milliseconds(t.took.inSeconds() / float64(n)),
			P95:     milliseconds(t.quantile(0.95)),
			P99:     milliseconds(t.quantile(0.99)),
		}
	}
	return f
}

// Window limits a report to recent requests. It covers at least the duration that its
// name says, and at most ten seconds more; an hour's, at most a minute more.
type Window int

// The supported windows.
const (
	AllTime         Window = iota // since the recorder was created
	LastMinute                    // "1m"
	LastFiveMinutes               // "5m"
	LastHour                      // "1h"
)

// ParseWindow parses "1m", "5m" or "1h".
func ParseWindow(s string) (Window, error) {
	switch s {
	case "1m":
		return LastMinute, nil
	case "5m":
		return LastFiveMinutes, nil
	case "1h":
		return LastHour, nil
	}
	return AllTime, fmt.Errorf("unknown window %q: use 1m, 5m or 1h", s)
}

// Query selects the content of a report. The zero value selects the totals.
type Query struct {
	Window    Window
	ByRoute   bool
	ByBackend bool

	// Adds the bytes to the totals. Routes and backends always have theirs.
	Bandwidth bool
}

// Report is the response to a query: the totals, and their parts.
type Report struct {
	Figures

	// The statistics of each route, if requested.
	ByRoute map[string]Figures `json:"by_route,omitzero"`

	// The statistics of each backend, if requested. Requests without a backend, such as
	// those that no route matched, are counted as NoBackend.
	ByBackend map[string]Figures `json:"by_backend,omitzero"`
}

// Report merges the statistics of all series.
func (rec *Recorder) Report(q Query) Report {
	total := newCounts()
	routes, backends := groups{}, groups{}
	rec.each(func(s *Series) {
		t := s.read(q.Window)
		total.merge(t)
		if q.ByRoute {
			routes.add(s.route, t)
		}
		if q.ByBackend {
			backend := s.backend
			if backend == "" {
				backend = NoBackend
			}
			backends.add(backend, t)
		}
	})

	report := Report{Figures: total.figures()}
	if q.Bandwidth {
		report.Bandwidth = &total.traffic
	}
	if q.ByRoute {
		report.ByRoute = routes.figures()
	}
	if q.ByBackend {
		report.ByBackend = backends.figures()
	}
	return report
}

// groups are counts by name.
type groups map[string]*counts

func (g groups) add(name string, t *counts) {
	if g[name] == nil {
		g[name] = newCounts()
	}
	g[name].merge(t)
}

func (g groups) figures() map[string]Figures {
	all := make(map[string]Figures, len(g))
	for name, t := range g {
		figures := t.figures()
		figures.Bandwidth = &t.traffic
		all[name] = figures
	}
	return all
}

// Snapshot is a copy of all statistics at one time. They are cumulative: since the
// recorder was created, that is, since the process started or the gateway first
// appeared in the configuration.
type Snapshot struct {
	Time    time.Time
	Gateway string
	Series  []SeriesSnapshot // by route and backend
}

// SeriesSnapshot is the statistics of one route's requests to one backend.
type SeriesSnapshot struct {
	Route   string `json:"route"`
	Backend string `json:"backend"` // empty for requests without a backend

	Figures

	// The number of responses by status, including 101.
	Codes map[int]uint64 `json:"codes"`

	// The sum of the durations in Latency.
	LatencySumSeconds float64 `json:"latency_sum_seconds"`

	// The number of requests in flight.
	InFlight int64 `json:"in_flight"`

	// Bytes transferred, including those of requests that have not ended.
	Traffic Traffic `json:"bandwidth_bytes"`

	// The distribution of the durations in seconds, as DDSketch encodes it: sketches
	// of several gateways or times can be decoded and merged with any of its
	// libraries. Empty if there were no durations.
	Sketch []byte `json:"sketch,omitempty"`
}

// Snapshot reads every series. Each is consistent in itself.
func (rec *Recorder) Snapshot() Snapshot {
	snap := Snapshot{Time: time.Now(), Gateway: rec.name}
	rec.each(func(s *Series) {
		t := s.read(AllTime)
		one := SeriesSnapshot{
			Route:             s.route,
			Backend:           s.backend,
			Figures:           t.figures(),
			Codes:             make(map[int]uint64, len(t.codes)),
			LatencySumSeconds: t.took.inSeconds(),
			InFlight:          s.inFlight(),
			Traffic:           t.traffic,
		}
		for _, c := range t.codes {
			one.Codes[c.code] = c.n
		}
		if !t.sketch.IsEmpty() {
			one.Sketch = t.encode(false)
		}
		snap.Series = append(snap.Series, one)
	})
	return snap
}

// empty reports whether nothing has been recorded yet.
func (s Snapshot) empty() bool {
	for i := range s.Series {
		if len(s.Series[i].Codes) > 0 || s.Series[i].Traffic != (Traffic{}) {
			return false
		}
	}
	return true
}
