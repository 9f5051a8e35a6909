package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/rgate/rgate/internal/testkit"
)

// scraped maps metric names to the labels of their series.
type scraped map[string][]map[string]string

// scrape reads all metrics of a gateway and returns their series as Prometheus stores
// them.
func (g *gateway) scrape(t testing.TB) scraped {
	t.Helper()
	response, err := g.client.Get(g.adminURL("/metrics"))
	must(t, "reading the metrics", err)
	defer response.Body.Close()
	text := expfmt.NewTextParser(model.UTF8Validation)
	families, err := text.TextToMetricFamilies(response.Body)
	must(t, "parsing the metrics", err)
	all := make(scraped)
	for name, family := range families {
		for _, metric := range family.GetMetric() {
			have := map[string]string{"job": "rgate", "instance": "gateway:2019"}
			for _, label := range metric.GetLabel() {
				have[label.GetName()] = label.GetValue()
			}
			all.add(name, metric, have)
		}
	}
	return all
}

func (s scraped) add(name string, metric *dto.Metric, have map[string]string) {
	histogram := metric.GetHistogram()
	if histogram == nil {
		s[name] = append(s[name], have)
		return
	}
	s[name+"_sum"] = append(s[name+"_sum"], have)
	s[name+"_count"] = append(s[name+"_count"], have)
	for _, bucket := range histogram.GetBucket() {
		with := maps.Clone(have)
		with["le"] = fmt.Sprint(bucket.GetUpperBound())
		s[name+"_bucket"] = append(s[name+"_bucket"], with)
	}
}

// matching returns all label names of the series that match a selector, or nil if no
// series matches.
func (s scraped) matching(selector *parser.VectorSelector) (names map[string]bool) {
	for _, series := range s[selector.Name] {
		fits := true
		for _, matcher := range selector.LabelMatchers {
			fits = fits && (matcher.Name == model.MetricNameLabel || matcher.Matches(series[matcher.Name]))
		}
		if !fits {
			continue
		}
		if names == nil {
			names = make(map[string]bool)
		}
		for name := range series {
			names[name] = true
		}
	}
	return names
}

// check returns an error if a query uses a metric, label or label value that was not
// scraped.
func (s scraped) check(query string) error {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return err
	}
	var found error
	parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok || found != nil {
			return nil
		}
		names := s.matching(selector)
		if names == nil {
			found = fmt.Errorf("no series of the gateway is one of %s", selector)
			return nil
		}
		for _, matcher := range selector.LabelMatchers {
			if matcher.Name != model.MetricNameLabel && !names[matcher.Name] {
				found = fmt.Errorf("%s has no label %q", selector.Name, matcher.Name)
			}
		}
		for _, above := range path {
			if by, ok := above.(*parser.AggregateExpr); ok && !by.Without {
				for _, name := range by.Grouping {
					if !names[name] && !replaces(path, name) {
						found = fmt.Errorf("%s has no label %q to group by", selector.Name, name)
					}
				}
			}
		}
		return nil
	})
	return found
}

// replaces reports whether a label_replace call on the path creates the label.
func replaces(path []parser.Node, name string) bool {
	return slices.ContainsFunc(path, func(node parser.Node) bool {
		call, ok := node.(*parser.Call)
		if !ok || call.Func.Name != "label_replace" {
			return false
		}
		literal, ok := call.Args[1].(*parser.StringLiteral)
		return ok && literal.Val == name
	})
}

// dashboardQueries returns the queries of a Grafana dashboard's panels and variables.
// Variables are replaced with their "All" value.
func dashboardQueries(t *testing.T, file string) (queries []string) {
	content, err := os.ReadFile(file)
	must(t, "reading the dashboard", err)
	var dashboard struct {
		Panels     []dashboardPanel
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
	}
	must(t, "decoding the dashboard", json.Unmarshal(content, &dashboard))
	for _, panel := range dashboard.Panels {
		if panel.Type == "row" {
			continue
		}
		if len(panel.Targets) == 0 {
			t.Errorf("the panel %q has no query", panel.Title)
		}
		for _, target := range panel.Targets {
			for label := range strings.FieldsSeq(target.LegendFormat) {
				name, ok := strings.CutPrefix(label, "{{")
				if name = strings.TrimSuffix(name, "}}"); ok && name != "instance" && !strings.Contains(target.Expr, name) {
					t.Errorf("the panel %q shows the label %s, which its query does not group by", panel.Title, name)
				}
			}
			queries = append(queries, target.Expr)
		}
	}
	labelValues := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
	for _, variable := range dashboard.Templating.List {
		if variable.Type != "query" {
			continue
		}
		m := labelValues.FindStringSubmatch(variable.Definition)
		if m == nil {
			t.Errorf("the variable %s asks for %q", variable.Name, variable.Definition)
			continue
		}
		queries = append(queries, "count by ("+m[2]+") ("+m[1]+")")
	}
	for i := range queries {
		queries[i] = strings.ReplaceAll(queries[i], "$__rate_interval", "1m")
		queries[i] = regexp.MustCompile(`\$\w+`).ReplaceAllString(queries[i], ".*")
	}
	return queries
}

type dashboardPanel struct {
	Title, Type string
	Targets     []struct{ Expr, LegendFormat string }
}

// grafanaGateway is a configuration that produces series of every metric that the
// dashboards query.
const grafanaGateway = `
bandwidth:
  kong_metrics: true
  sources: [{name: itself, url: "http://localhost:$ADMIN/metrics", interval: 1s}]
quota: {egress: 1GB, period: month}
routes:
  - {path_prefix: /full, backend: full}
  - path_prefix: /api
    backend: a
    cache: {ttl: 1m}
    rate_limit: {requests: 3, window: 1h}
backends:
  - name: full
    match_labels: {app_name: $APP}
    quota: {egress: 1B, period: month, at_limit: block}
  - name: a
    match_labels: {app_name: $APP}
    circuit_breaker: {failures: 5}
    concurrency: {max: 10}
`

// TestGrafanaDashboard checks the dashboard's queries against the metrics of a gateway.
func TestGrafanaDashboard(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := startGateway(t, grafanaGateway)
	g.await(t, "a", 1)
	for range 5 {
		g.get(t, "/api/x")
	}
	g.get(t, "/nothing")
	testkit.Eventually(t, "a quota refuses", func() bool { return g.get(t, "/full/plain").status >= 400 })
	testkit.Eventually(t, "the source is up", func() bool { return g.metric(t, "rgate_bandwidth_source_up") == 1 })
	files, err := filepath.Glob("../contrib/grafana/*.json")
	must(t, "looking for dashboards", err)
	if len(files) == 0 {
		t.Fatal("found no dashboard")
	}
	series := g.scrape(t)
	for _, file := range files {
		queries := dashboardQueries(t, file)
		if len(queries) < 30 {
			t.Errorf("%s has only %d queries", file, len(queries))
		}
		for _, query := range queries {
			if err := series.check(query); err != nil {
				t.Errorf("%s: %s: %v", filepath.Base(file), query, err)
			}
		}
	}
}

// kongQueries are queries of Kong's Grafana dashboard (7424). For each metric, one query
// uses all of the labels.
var kongQueries = []string{
	`sum(rate(kong_http_requests_total{service=~".*", route=~".*", instance=~".*"}[1m])) by (service,route,code)`,
	`sum(rate(kong_http_requests_total{source=~".*", workspace=~".*", consumer=~".*"}[1m])) by (source, workspace, consumer)`,
	`histogram_quantile(0.95, sum(rate(kong_request_latency_ms_bucket{service=~".*",route=~".*",instance=~".*"}[1m])) by (service,route,le))`,
	`sum(irate(kong_bandwidth_bytes{instance=~".*"}[1m])) by (direction)`,
	`sum(irate(kong_bandwidth_bytes{direction="egress", service=~".*", route=~".*", instance=~".*"}[1m])) by (service,route)`,
	`sum(irate(kong_bandwidth_bytes{direction="ingress", workspace=~".*", consumer=~".*"}[1m])) by (service, workspace, consumer)`,
	`(kong_memory_lua_shared_dict_bytes{instance=~".*",shared_dict!~"kong_process_events"}/kong_memory_lua_shared_dict_total_bytes{instance=~".*",shared_dict!~"kong_process_events"})*100`,
	`kong_memory_workers_lua_vms_bytes{instance=~".*"}`,
	`sum(kong_upstream_target_health{state="healthy",upstream=~".*"}) by (upstream,target,address) * -1 + sum(kong_upstream_target_health{state=~"(unhealthy|dns_error)",upstream=~".*"}) by (upstream,target,address)`,
	`sum(label_replace(kong_upstream_target_health{upstream=~".*"}, "state_value", "1", "state", "healthy")) by (upstream, target, address, state, state_value) > 0`,
	`sum(rate(kong_nginx_connections_total{state=~"active|reading|writing|waiting", instance=~".*"}[1m])) by (state)`,
	`sum(rate(kong_nginx_connections_total{state="total", instance=~".*"}[1m]))`,
	`sum(kong_nginx_connections_total{state="accepted", instance=~".*"})`,
	`sum(kong_nginx_connections_total{state="handled", instance=~".*"})`,
	`count by (instance, node_id, subsystem) (kong_nginx_connections_total)`, // the dashboard's list of instances
	`kong_nginx_requests_total{node_id=~".*"}`,
	`kong_datastore_reachable`,
}

// TestKongMetrics checks the queries of Kong's dashboard, and compares the values with
// the gateway's own metrics.
func TestKongMetrics(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := startGateway(t, grafanaGateway, "GOMEMLIMIT=1GiB")
	g.await(t, "a", 1)
	for range 3 {
		g.get(t, "/api/plain")
	}
	g.get(t, "/nothing")
	series := g.scrape(t)
	for _, query := range kongQueries {
		if err := series.check(query); err != nil {
			t.Errorf("%s: %v", query, err)
		}
	}
	for name, pair := range map[string][2]float64{
		"bytes to clients": {g.metric(t, "kong_bandwidth_bytes", "direction", "egress", "service", "a"), g.metric(t, "rgate_bandwidth_bytes_total", "direction", "egress", "service", "a")},
		"responses":        {g.metric(t, "kong_http_requests_total", "service", "a", "code", "200", "source", "service"), 3},
		"own responses":    {g.metric(t, "kong_http_requests_total", "source", "kong"), 1},
		"durations":        {g.metric(t, "kong_request_latency_ms", "service", "a"), 3},
		"healthy targets":  {g.metric(t, "kong_upstream_target_health", "upstream", "a", "state", "healthy"), 1},
	} {
		if pair[0] != pair[1] || pair[0] == 0 {
			t.Errorf("%s: got %g, want %g", name, pair[0], pair[1])
		}
	}
}

func TestQueriesThatAskForMoreAreFound(t *testing.T) {
	series := scraped{"a_total": {{"x": "1", "job": "rgate"}}}
	for _, query := range []string{"sum(a_total", "b_total", `a_total{x="2"}`, `a_total{y=~".*"}`, "sum by (y) (rate(a_total[1m]))"} {
		if series.check(query) == nil {
			t.Errorf("nothing is found wrong with %s", query)
		}
	}
	if err := series.check(`sum by (x) (rate(a_total{x=~"1|2"}[1m])) > 0`); err != nil {
		t.Error(err)
	}
}
