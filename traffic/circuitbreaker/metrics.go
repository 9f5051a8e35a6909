package circuitbreaker

import "github.com/prometheus/client_golang/prometheus"

var (
	circuitStates = prometheus.NewDesc("rgate_circuit_breaker_state",
		"State of the backend's circuit breaker: closed (0), half-open (1) or open (2).",
		[]string{"gateway", "backend"}, nil)
	circuitTransitions = prometheus.NewDesc("rgate_circuit_breaker_transitions_total",
		"Total transitions of the backend's circuit breaker into a state.",
		[]string{"gateway", "backend", "state"}, nil)
	circuitContainers = prometheus.NewDesc("rgate_circuit_breaker_open_containers",
		"Number of containers of the backend whose circuit breaker is open.",
		[]string{"gateway", "backend"}, nil)
)

// circuitCollector collects the state of all circuit breakers of the process.
type circuitCollector struct{}

// Describe implements prometheus.Collector.
func (circuitCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- circuitStates
	ch <- circuitTransitions
	ch <- circuitContainers
}

// circuitFigures holds the metrics of a backend, summed over its circuits.
type circuitFigures struct {
	whole, perContainer bool
	state               circuitState
	entered             [3]uint64
	open                int
}

// Collect implements prometheus.Collector.
func (circuitCollector) Collect(ch chan<- prometheus.Metric) {
	type labels struct{ gateway, backend string }
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

// add adds the metrics of a circuit.
func (f *circuitFigures) add(c *circuit) {
	f.whole, f.perContainer = f.whole || !c.perContainer, f.perContainer || c.perContainer
	c.each(func(address string, b *breaker) {
		state, _ := b.current()
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
	for s, n := range c.retired {
		f.entered[s] += n
	}
}

// Interface guard
var _ prometheus.Collector = circuitCollector{}
