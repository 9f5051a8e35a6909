package traffic

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/policy"
)

var (
	circuitStates = prometheus.NewDesc("rgate_circuit_breaker_state",
		"The state of the backend's circuit breaker: closed (0), half-open (1) or open (2).",
		[]string{"gateway", "backend"}, nil)
	circuitTransitions = prometheus.NewDesc("rgate_circuit_breaker_transitions_total",
		"How often the backend's circuit breaker has entered a state.",
		[]string{"gateway", "backend", "state"}, nil)
	circuitContainers = prometheus.NewDesc("rgate_circuit_breaker_open_containers",
		"Containers of the backend that get no requests, for their circuit breakers are open.",
		[]string{"gateway", "backend"}, nil)
	concurrencyInFlight = prometheus.NewDesc("rgate_concurrency_in_flight",
		"Requests that have a place in the backend.", []string{"gateway", "backend"}, nil)
	concurrencyQueued = prometheus.NewDesc("rgate_concurrency_queued",
		"Requests that wait for one.", []string{"gateway", "backend"}, nil)
	concurrencyRejected = prometheus.NewDesc("rgate_concurrency_rejected_total",
		"Requests that got none, because the queue was full or their time was up.",
		[]string{"gateway", "backend", "reason"}, nil)
)

// collector renders the state of all policies of the process when it is scraped.
type collector struct{}

// registerMetrics adds the metrics to those of a configuration, once.
func registerMetrics(ctx caddy.Context) error {
	return policy.RegisterMetrics(ctx, collector{})
}

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{circuitStates, circuitTransitions, circuitContainers,
		concurrencyInFlight, concurrencyQueued, concurrencyRejected} {
		ch <- desc
	}
}

// labels are those of a backend's metrics.
type labels struct{ gateway, backend string }

// Collect implements prometheus.Collector.
func (collector) Collect(ch chan<- prometheus.Metric) {
	collectCircuits(ch)
	collectLimiters(ch)
}

// circuitFigures are those of all breakers of a backend.
type circuitFigures struct {
	whole, perContainer bool
	state               circuitState
	entered             [3]uint64
	open                int
}

func collectCircuits(ch chan<- prometheus.Metric) {
	all := make(map[labels]*circuitFigures)
	circuits.Range(func(_, value any) bool {
		c := value.(*circuit)
		at := labels{c.gateway, c.label()}
		if all[at] == nil {
			all[at] = new(circuitFigures)
		}
		all[at].add(c)
		return true
	})
	for at, figures := range all {
		if figures.whole {
			ch <- prometheus.MustNewConstMetric(circuitStates, prometheus.GaugeValue, float64(figures.state), at.gateway, at.backend)
		}
		if figures.perContainer {
			ch <- prometheus.MustNewConstMetric(circuitContainers, prometheus.GaugeValue, float64(figures.open), at.gateway, at.backend)
		}
		for state, n := range figures.entered {
			ch <- prometheus.MustNewConstMetric(circuitTransitions, prometheus.CounterValue, float64(n),
				at.gateway, at.backend, circuitState(state).String())
		}
	}
}

func (f *circuitFigures) add(c *circuit) {
	f.whole, f.perContainer = f.whole || !c.perContainer, f.perContainer || c.perContainer
	c.each(func(address string, b *breaker) {
		state, _ := b.look()
		if address == "" {
			f.state = max(f.state, state)
		} else if state == circuitOpen {
			f.open++
		}
		for s := range f.entered {
			f.entered[s] += b.entered[s].Load()
		}
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	for s, n := range c.gone {
		f.entered[s] += n
	}
}

func collectLimiters(ch chan<- prometheus.Metric) {
	all := make(map[labels]load)
	sharedLimiters.Range(func(_, value any) bool {
		l := value.(*sharedLimiter)
		at, more := labels{l.gateway, l.label()}, l.look()
		sum := all[at]
		sum.inFlight += more.inFlight
		sum.queued += more.queued
		sum.full += more.full
		sum.outOfTime += more.outOfTime
		all[at] = sum
		return true
	})
	for at, sum := range all {
		ch <- prometheus.MustNewConstMetric(concurrencyInFlight, prometheus.GaugeValue, float64(sum.inFlight), at.gateway, at.backend)
		ch <- prometheus.MustNewConstMetric(concurrencyQueued, prometheus.GaugeValue, float64(sum.queued), at.gateway, at.backend)
		ch <- prometheus.MustNewConstMetric(concurrencyRejected, prometheus.CounterValue, float64(sum.full), at.gateway, at.backend, "full")
		ch <- prometheus.MustNewConstMetric(concurrencyRejected, prometheus.CounterValue, float64(sum.outOfTime), at.gateway, at.backend, "timeout")
	}
}

// Interface guard
var _ prometheus.Collector = collector{}
