package traffic

import (
	"cmp"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/policy"
)

// coalesced counts the requests that got the answer of another one, fallbacks those
// that were answered in place of a backend, by what answered.
var (
	coalesced = &tally{policy: "coalesce", desc: prometheus.NewDesc("rgate_coalesced_requests_total",
		"Requests that were answered by the answer to another one.", []string{"gateway", "route", "backend"}, nil)}
	fallbacks = &tally{policy: "fallback", desc: prometheus.NewDesc("rgate_fallback_requests_total",
		"Requests that were answered in place of a backend that failed.", []string{"gateway", "route", "backend", "by"}, nil), byKind: true}
)

// tally counts by place for the whole process, so that reloads lose nothing. Places
// and kinds come from the configuration, so there are never many.
type tally struct {
	policy string
	desc   *prometheus.Desc
	byKind bool
	all    sync.Map // of *atomic.Uint64, by tallied
}

type tallied struct {
	place policy.Place
	kind  string
}

// count counts a request.
func (t *tally) count(r *http.Request, kind string) {
	what := tallied{policy.PlaceOf(r), kind}
	n, ok := t.all.Load(what)
	if !ok {
		var known bool
		if n, known = t.all.LoadOrStore(what, new(atomic.Uint64)); !known {
			n := n.(*atomic.Uint64) // is there for good, and so is what is published
			policy.Publish(t.policy, what.place, func() any { return map[string]uint64{cmp.Or(kind, "requests"): n.Load()} })
		}
	}
	n.(*atomic.Uint64).Add(1)
}

// Describe implements prometheus.Collector.
func (t *tally) Describe(ch chan<- *prometheus.Desc) { ch <- t.desc }

// Collect implements prometheus.Collector.
func (t *tally) Collect(ch chan<- prometheus.Metric) {
	t.all.Range(func(key, n any) bool {
		what := key.(tallied)
		labels := []string{what.place.Gateway, what.place.Route, what.place.Backend}
		if t.byKind {
			labels = append(labels, what.kind)
		}
		ch <- prometheus.MustNewConstMetric(t.desc, prometheus.CounterValue, float64(n.(*atomic.Uint64).Load()), labels...)
		return true
	})
}

// register adds the counts to the metrics of a configuration, once.
func (t *tally) register(ctx caddy.Context) error {
	return policy.RegisterMetrics(ctx, t)
}

// Interface guard
var _ prometheus.Collector = (*tally)(nil)
