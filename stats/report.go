package stats

import (
	"fmt"
	"time"
)

// Figures are what the requests of some span of time came to.
type Figures struct {
	Requests Requests `json:"requests_count"`
	Latency  Latency  `json:"latency_ms"`

	// The bytes that flowed, if asked for.
	Bandwidth *Traffic `json:"bandwidth_bytes,omitempty"`
}

// Requests are counted by the status that they were answered with.
type Requests struct {
	// Answers of 200 to 399.
	Success uint64 `json:"success"`

	// Answers above 399.
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

func (t *tally) figures() Figures {
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

// Window limits a report to what happened lately. It reaches back at least as
// far as its name says and at most ten seconds further, an hour's at most a minute.
type Window int

// The windows that are kept.
const (
	AllTime         Window = iota // since the recorder was made
	LastMinute                    // "1m"
	LastFiveMinutes               // "5m"
	LastHour                      // "1h"
)

// ParseWindow reads "1m", "5m" or "1h"; anything else is an error.
func ParseWindow(s string) (Window, error) {
	switch s {
	case "1m":
		return LastMinute, nil
	case "5m":
		return LastFiveMinutes, nil
	case "1h":
		return LastHour, nil
	}
	return AllTime, fmt.Errorf("reading window: there is none of %q; use 1m, 5m or 1h", s)
}

// Query says what a report shall contain. The zero value asks for the totals.
type Query struct {
	Window    Window
	ByRoute   bool
	ByBackend bool

	// Adds the bytes to the totals. What they consist of always has them.
	Bandwidth bool
}

// Report is the answer to a query: the totals, and what they consist of.
type Report struct {
	Figures

	// The figures of each route, if asked for.
	ByRoute map[string]Figures `json:"by_route,omitzero"`

	// The figures of each backend, if asked for. Requests that went to none, such
	// as those that no route matched, are those of NoBackend.
	ByBackend map[string]Figures `json:"by_backend,omitzero"`
}

// Report merges what the series have recorded.
func (rec *Recorder) Report(q Query) Report {
	total := newTally()
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

// groups are tallies by a name.
type groups map[string]*tally

func (g groups) add(name string, t *tally) {
	if g[name] == nil {
		g[name] = newTally()
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

// Snapshot is a copy of all figures at one time. They are cumulative: since the
// recorder was made, that is, since the process started or the gateway first
// appeared in its configuration.
type Snapshot struct {
	Time    time.Time
	Gateway string
	Series  []SeriesSnapshot // by route and backend
}

// SeriesSnapshot is what one route's requests to one backend came to.
type SeriesSnapshot struct {
	Route   string `json:"route"`
	Backend string `json:"backend"` // empty if the requests went to none

	Figures

	// How often each status was answered, 101 included.
	Codes map[int]uint64 `json:"codes"`

	// The sum of the durations that Latency is about.
	LatencySumSeconds float64 `json:"latency_sum_seconds"`

	// Requests that have begun and not ended.
	InFlight int64 `json:"in_flight"`

	// Bytes, also those of requests that have not ended.
	Traffic Traffic `json:"bandwidth_bytes"`

	// The distribution of the durations in seconds, as DDSketch encodes it: those
	// of several gateways or times can be decoded and merged with any of its
	// libraries. Empty if nothing was recorded.
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

// empty tells whether nothing has been recorded yet.
func (s Snapshot) empty() bool {
	for i := range s.Series {
		if len(s.Series[i].Codes) > 0 || s.Series[i].Traffic != (Traffic{}) {
			return false
		}
	}
	return true
}
