package stats

import (
	"fmt"
	"time"
)

// Figures holds the statistics of the requests in a time range.
type Figures struct {
	Requests Requests `json:"requests_count"`
	Latency  Latency  `json:"latency_ms"`

	// The bytes transferred. Nil unless requested.
	Bandwidth *Traffic `json:"bandwidth_bytes,omitempty"`
}

// Requests holds the number of requests by class of status code.
type Requests struct {
	// Responses with a status code from 200 to 399.
	Success uint64 `json:"success"`

	// Responses with a status code of 400 or above.
	Error uint64 `json:"error"`
}

// Latency holds latencies in milliseconds with up to three decimals. All are 0 if there
// were no requests. A latency is the time until the handler returns, including the body.
type Latency struct {
	// The exact mean.
	Average float64 `json:"average"`

	// The 95th percentile, within 1%.
	P95 float64 `json:"p95"`

	// The 99th percentile, within 1%.
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

// Window limits a report to recent requests. It covers at least its nominal duration. It
// covers at most ten seconds more or, for LastHour, one minute more.
type Window int

// Windows of a report.
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

// Query selects the content of a report. The zero value selects the totals of all
// requests.
type Query struct {
	Window    Window
	ByRoute   bool
	ByBackend bool

	// Whether the totals include bytes. Routes and backends always include bytes.
	Bandwidth bool
}

// Report is the result of a query: the totals, and the statistics of each route and
// backend.
type Report struct {
	Figures

	// The statistics of each route, if requested.
	ByRoute map[string]Figures `json:"by_route,omitzero"`

	// The statistics of each backend, if requested. Requests without a backend, such as
	// requests that matched no route, are counted as NoBackend.
	ByBackend map[string]Figures `json:"by_backend,omitzero"`
}

// Report returns the merged statistics of all series.
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

// groups maps names to counts.
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

// Snapshot is a copy of all statistics at one time. They are cumulative since the
// creation of the recorder. A recorder is created when its gateway first appears in the
// configuration.
type Snapshot struct {
	Time    time.Time
	Gateway string
	Series  []SeriesSnapshot // sorted by route and backend
}

// SeriesSnapshot holds the statistics of one route and backend.
type SeriesSnapshot struct {
	Route   string `json:"route"`
	Backend string `json:"backend"` // empty for requests without a backend

	Figures

	// The number of responses by status code, including 101.
	Codes map[int]uint64 `json:"codes"`

	// The sum of the durations, in seconds.
	LatencySumSeconds float64 `json:"latency_sum_seconds"`

	// The number of requests in flight.
	InFlight int64 `json:"in_flight"`

	// The bytes transferred, including bytes of requests in flight.
	Traffic Traffic `json:"bandwidth_bytes"`

	// The distribution of the durations in seconds, in DDSketch's encoding. Any DDSketch
	// library can decode it and merge sketches of several gateways or times. Empty if
	// there are no durations.
	Sketch []byte `json:"sketch,omitempty"`
}

// Snapshot returns a snapshot of all series. Each series is consistent in itself.
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
