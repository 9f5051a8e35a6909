package scrape

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/rgate/rgate/bandwidth/store"
)

// counter is the value of one bandwidth series of another gateway.
type counter struct {
	store.Key
	direction store.Direction
	headers   bool // counts header bytes instead of body bytes
	value     int64
}

// reading is the result of one scrape.
type reading struct {
	counters map[string]counter // keyed by idOf
	started  float64            // process start time in Unix seconds; 0 if unknown
}

// metricFormat maps a metric family of one gateway product to counters.
type metricFormat struct {
	family  string
	counter func(labels map[string]string) (counter, bool)
}

// metricFormats are tried in this order. Only the first format with series is read,
// because a gateway may export the same bytes in several formats.
var metricFormats = [][]metricFormat{
	{{"rgate_bandwidth_bytes_total", ofRgate(false)}, {"rgate_bandwidth_header_bytes_total", ofRgate(true)}},
	{{"kong_bandwidth_bytes", ofKong("direction")}},
	{{"kong_bandwidth", ofKong("type")}},
	{
		{"traefik_service_requests_bytes_total", ofTraefik(store.Ingress)},
		{"traefik_service_responses_bytes_total", ofTraefik(store.Egress)},
	},
}

// startFamily is the Prometheus metric for the process start time.
const startFamily = "process_start_time_seconds"

func ofKong(direction string) func(map[string]string) (counter, bool) {
	return func(labels map[string]string) (counter, bool) {
		c := counter{Key: store.Key{Service: labels["service"], Route: labels["route"], Consumer: labels["consumer"]}, direction: store.Direction(labels[direction])}
		return c, c.direction == store.Ingress || c.direction == store.Egress
	}
}

func ofTraefik(d store.Direction) func(map[string]string) (counter, bool) {
	return func(labels map[string]string) (counter, bool) {
		return counter{Key: store.Key{Service: labels["service"], Route: labels["route"]}, direction: d}, true
	}
}

// noService is the service of requests without a backend.
const noService = "_none"

func ofRgate(headers bool) func(map[string]string) (counter, bool) {
	return func(labels map[string]string) (counter, bool) {
		c, ok := ofKong("direction")(labels)
		c.headers = headers
		if c.Service == "" {
			c.Service = noService
		}
		return c, ok
	}
}

// read parses the bandwidth counters from metrics in the Prometheus text format. It fails
// if there are more than limit series, or if a value is not a valid byte count.
func read(metrics io.Reader, limit int) (reading, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(metrics)
	if err != nil {
		return reading{}, fmt.Errorf("parsing metrics: %w", err)
	}
	if len(families) == 0 {
		return reading{}, errors.New("the response has no metrics: set url to metrics in the Prometheus text format")
	}
	r := reading{counters: make(map[string]counter)}
	if start := families[startFamily].GetMetric(); len(start) == 1 {
		if value := valueOf(start[0]); value > 0 && !math.IsInf(value, 0) {
			r.started = value
		}
	}
	for _, spoken := range metricFormats {
		for _, d := range spoken {
			if err := r.add(families[d.family], d, limit); err != nil {
				return reading{}, err
			}
		}
		if len(r.counters) > 0 {
			break
		}
	}
	return r, nil
}

// add adds the series of a family.
func (r *reading) add(family *dto.MetricFamily, d metricFormat, limit int) error {
	for _, metric := range family.GetMetric() {
		labels := make(map[string]string, len(metric.GetLabel()))
		for _, pair := range metric.GetLabel() {
			labels[pair.GetName()] = pair.GetValue()
		}
		c, ok := d.counter(labels)
		if !ok {
			continue
		}
		value := valueOf(metric)
		if !(value >= 0 && value < math.MaxInt64) { // also rejects NaN
			return fmt.Errorf("invalid value %g of %s: must be at least 0 and below 2^63", value, seriesName(d.family, labels))
		}
		c.value = int64(value)
		if r.counters[idOf(d.family, labels)] = c; len(r.counters) > limit {
			return fmt.Errorf("more than %d series of %s: increase max_series", limit, d.family)
		}
	}
	return nil
}

func valueOf(metric *dto.Metric) float64 {
	switch {
	case metric.GetCounter() != nil:
		return metric.GetCounter().GetValue()
	case metric.GetUntyped() != nil:
		return metric.GetUntyped().GetValue()
	case metric.GetGauge() != nil:
		return metric.GetGauge().GetValue()
	}
	return math.NaN()
}

// seriesName returns the name and the labels of a series in Prometheus' text format.
func seriesName(family string, labels map[string]string) string {
	metric := model.Metric{model.MetricNameLabel: model.LabelValue(family)}
	for name, value := range labels {
		metric[model.LabelName(name)] = model.LabelValue(value)
	}
	return metric.String()
}

// idOf returns a fixed-length hash of a series' family and labels.
func idOf(family string, labels map[string]string) string {
	var text strings.Builder
	text.WriteString(family)
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(&text, "\x00%s\x00%s", name, labels[name])
	}
	digest := sha256.Sum256([]byte(text.String()))
	return hex.EncodeToString(digest[:16])
}

// tolerance is the maximum change of a process start time, in seconds, without a restart.
// Exporters compute the start time from clocks.
const tolerance = 10

// delta returns the bytes since the last scrape, and the state to save. It does not
// modify last.
//
// The first scrape of a source is the baseline, unless the process started after the
// source was added: then all of its bytes are new. In later scrapes, new counters start
// at 0. So do counters that decreased, and all counters after a restart. No bytes are
// counted twice, and no delta is negative.
//
// Missing counters stay in the state in case they return. delta fails if the state has
// more than twice limit counters.
func delta(last store.SourceState, r reading, at int64, limit int) (bytes map[store.Key]store.Bytes, next store.SourceState, err error) {
	next = store.SourceState{Since: last.Since, Scraped: at, Started: r.started, Values: maps.Clone(last.Values)}
	if next.Values == nil {
		next.Values = make(map[string]int64, len(r.counters))
	}
	bytes = make(map[store.Key]store.Bytes)
	baseline := last.Scraped == 0 && !(last.Since > 0 && r.started > float64(last.Since))
	restarted := last.Started > 0 && r.started > last.Started+tolerance && r.started > float64(last.Scraped)
	if restarted {
		clear(next.Values)
	}
	for id, c := range r.counters {
		before := next.Values[id]
		next.Values[id] = c.value
		if c.value < before {
			before = 0
		}
		if baseline || c.value == before {
			continue
		}
		grown := c.of(c.value - before)
		// Bytes of a consumer also count for the row without a consumer.
		for _, key := range []store.Key{{Service: c.Service, Route: c.Route}, c.Key} {
			sum := bytes[key]
			sum.Add(grown)
			bytes[key] = sum
			if c.Consumer == "" {
				break
			}
		}
	}
	if len(next.Values) > 2*limit {
		return nil, last, fmt.Errorf("more than %d series, including series of earlier scrapes: increase max_series", 2*limit)
	}
	return bytes, next, nil
}

// of returns a Bytes with n in the field that the counter counts.
func (c *counter) of(n int64) (b store.Bytes) {
	switch {
	case c.headers && c.direction == store.Ingress:
		b.IngressHeaders = n
	case c.headers:
		b.EgressHeaders = n
	case c.direction == store.Ingress:
		b.Ingress = n
	default:
		b.Egress = n
	}
	return b
}
