package integration

import (
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func TestPrometheusMetrics(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	startContainer(t, spec{})
	g := startGateway(t, statsGateway)
	g.await(t, "web", 2)
	for target, n := range map[string]int{"/web": 5, "/web?status=500": 2, "/down": 3, "/nowhere": 4, "/stats": 6} {
		for range n {
			g.get(t, target)
		}
	}
	response, err := g.client.Get(g.adminURL("/metrics"))
	must(t, "reading the metrics", err)
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	must(t, "parsing the metrics", err)
	for name, kind := range map[string]dto.MetricType{
		"rgate_requests_total":               dto.MetricType_COUNTER,
		"rgate_request_duration_seconds":     dto.MetricType_HISTOGRAM,
		"rgate_requests_in_flight":           dto.MetricType_GAUGE,
		"rgate_backend_up":                   dto.MetricType_GAUGE,
		"rgate_backend_upstreams":            dto.MetricType_GAUGE,
		"rgate_docker_last_sync_age_seconds": dto.MetricType_GAUGE,
	} {
		if family := families[name]; family == nil || family.GetType() != kind || family.GetHelp() == "" {
			t.Errorf("%s: got %v, want a %s with a help text", name, family, kind)
		}
	}
	for _, tc := range []struct {
		want   float64
		name   string
		labels []string
	}{
		{14, "rgate_requests_total", nil},
		{5, "rgate_requests_total", []string{"gateway", "rgate", "route", "/web", "backend", "web", "code", "200"}},
		{2, "rgate_requests_total", []string{"route", "/web", "code", "500"}},
		{3, "rgate_requests_total", []string{"backend", "down", "code", "503"}},
		{4, "rgate_requests_total", []string{"route", "_default", "backend", "_none", "code", "403"}},
		{14, "rgate_request_duration_seconds", nil},
		{7, "rgate_request_duration_seconds", []string{"route", "/web"}},
		{0, "rgate_requests_in_flight", nil},
		{1, "rgate_backend_up", []string{"backend", "web"}},
		{0, "rgate_backend_up", []string{"backend", "down"}},
		{2, "rgate_backend_upstreams", []string{"gateway", "rgate", "backend", "web"}},
	} {
		if got := g.metric(t, tc.name, tc.labels...); got != tc.want {
			t.Errorf("%s%v is %v, want %v", tc.name, tc.labels, got, tc.want)
		}
	}
	for _, series := range families["rgate_request_duration_seconds"].GetMetric() {
		histogram, last := series.GetHistogram(), uint64(0)
		for _, bucket := range histogram.GetBucket() {
			if bucket.GetCumulativeCount() < last {
				t.Errorf("the buckets of %v do not ascend", series.GetLabel())
			}
			last = bucket.GetCumulativeCount()
		}
		if last != histogram.GetSampleCount() || (last > 0) != (histogram.GetSampleSum() > 0) {
			t.Errorf("the buckets of %v end with %d of %d requests that took %vs", series.GetLabel(), last, histogram.GetSampleCount(), histogram.GetSampleSum())
		}
	}
	ages := families["rgate_docker_last_sync_age_seconds"].GetMetric()
	if len(ages) != 1 || ages[0].GetGauge().GetValue() < 0 || ages[0].GetGauge().GetValue() > 60 {
		t.Errorf("the ages of the last sync are %v, want one of at most a minute", ages)
	}
}
