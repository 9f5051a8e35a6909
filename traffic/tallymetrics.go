package traffic

import (
	"cmp"
	"net/http"

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
	all    policy.Counters[tallied]
}

type tallied struct {
	place policy.Place
	kind  string
}

// count counts a request.
func (t *tally) count(r *http.Request, kind string) {
	what := tallied{policy.PlaceOf(r), kind}
	if t.all.Count(what) { // it is there for good, and so is what is published
		policy.Publish(t.policy, what.place, func() any { return map[string]uint64{cmp.Or(kind, "requests"): t.all.Of(what)} })
	}
}

// Describe implements prometheus.Collector.
func (t *tally) Describe(ch chan<- *prometheus.Desc) { ch <- t.desc }

// Collect implements prometheus.Collector.
func (t *tally) Collect(ch chan<- prometheus.Metric) {
	t.all.Each(func(what tallied, n uint64) {
		labels := []string{what.place.Gateway, what.place.Route, what.place.Backend}
		if t.byKind {
			labels = append(labels, what.kind)
		}
		ch <- prometheus.MustNewConstMetric(t.desc, prometheus.CounterValue, float64(n), labels...)
	})
}

// register adds the counts to the metrics of a configuration, once.
func (t *tally) register(ctx caddy.Context) error {
	return policy.RegisterMetrics(ctx, t)
}

// Interface guard
var _ prometheus.Collector = (*tally)(nil)
