package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rgate/rgate/internal/testkit"
)

const usageGateway = `
bandwidth: {path: /metrics/bandwidth_used, flush_interval: 1s}
routes:
  - {path_prefix: /web, backend: web}
backends:
  - {name: web, match_labels: {app_name: $APP}}
`

const usagePath = "/metrics/bandwidth_used"

// usageItem is a data point of the usage API.
type usageItem struct {
	Time, Type              string
	Service, Route, Gateway *string
	Used                    *int64 `json:"bandwidth_used"`
}

// usage queries the usage API.
func (g *gateway) usage(t testing.TB, query string) (items []usageItem) {
	t.Helper()
	got := g.get(t, usagePath+query)
	if got.status != http.StatusOK {
		t.Fatalf("%s got %d: %s", query, got.status, got.body)
	}
	strict := json.NewDecoder(strings.NewReader(got.body))
	strict.DisallowUnknownFields()
	must(t, "reading "+got.body, strict.Decode(&items))
	return items
}

// sumUsage returns the sum of a direction's data points.
func sumUsage(items []usageItem, direction string) (sum int64) {
	for _, item := range items {
		if item.Type == direction && item.Used != nil {
			sum += *item.Used
		}
	}
	return sum
}

func TestUsageAPI(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := startGateway(t, usageGateway)
	g.await(t, "web", 1)
	var sent, received int64
	for i := range 20 {
		body := strings.Repeat("x", 10*i)
		received += int64(len(g.ask(t, http.MethodPost, fmt.Sprintf("/web/upload?bytes=%d", 100+i), body).body))
		sent += int64(len(body))
	}
	const query = "?lookback_duration=5m&type=egress&service=web&route=/web"
	testkit.Eventually(t, "every byte is counted", func() bool {
		return sumUsage(g.usage(t, query), "egress") == received && sumUsage(g.usage(t, "?type=ingress"), "ingress") == sent
	})

	items := g.usage(t, query)
	if len(items) != 6 {
		t.Fatalf("five minutes have %d points", len(items))
	}
	for i, item := range items {
		at, err := time.Parse(time.RFC3339Nano, item.Time)
		if err != nil || !strings.HasSuffix(item.Time, "+00:00") || item.Type != "egress" || *item.Service != "web" || *item.Route != "/web" {
			t.Errorf("point %d is %+v: %v", i, item, err)
		}
		if i < 5 && !at.Equal(at.Truncate(time.Minute)) || i == 5 && len(item.Time) != len("2026-03-01T12:34:20.500000+00:00") {
			t.Errorf("point %d is stamped %s", i, item.Time)
		}
	}
	if items[0].Used != nil {
		t.Errorf("nothing was counted five minutes ago, but it says %d", *items[0].Used)
	}

	// The admin API, totals, CSV and `rgate usage` report the same data.
	total := fmt.Sprintf(`"type":"egress","service":"web","route":null,"bandwidth_used":%d`, received)
	if got := g.get(t, usagePath+"/total?type=egress&group_by=service"); !strings.Contains(got.body, total) {
		t.Errorf("the total is %s, want %s", got.body, total)
	}
	admin, err := g.client.Get(g.adminURL("/rgate/bandwidth/total?type=egress&group_by=service"))
	must(t, "asking the admin API", err)
	admin.Body.Close()
	if admin.StatusCode != http.StatusOK {
		t.Errorf("the admin API: got %d", admin.StatusCode)
	}
	if got := g.ask(t, http.MethodGet, usagePath+"?lookback_duration=0m", "", "Accept", "text/csv"); got.header.Get("Content-Type") != "text/csv; charset=utf-8; header=present" || !strings.HasPrefix(got.body, "time,type,service,route,bandwidth_used\r\n") {
		t.Errorf("CSV is %q as %s", got.body, got.header.Get("Content-Type"))
	}
	printed := rgate(t, nil, "usage", "--since", "10m", "--config", g.file)
	if printed.code != 0 || !strings.Contains(printed.stdout, "web") || !strings.Contains(printed.stdout, "100.0 %") {
		t.Errorf("rgate usage prints %+v", printed)
	}
	if stats := g.stats(t, ""); stats.Requests.Success != 20 {
		t.Errorf("reports count as requests: %+v", stats.Requests)
	}

	// Usage survives a restart.
	g.signal(t, os.Interrupt)
	g.awaitExit(t)
}

func TestUsageAPIRefuses(t *testing.T) {
	t.Parallel()
	g := startGateway(t, usageGateway)
	for target, status := range map[string]int{
		usagePath + "?lookback_duration=5": 400, usagePath + "?type=both": 400, usagePath + "?nonsense=1": 400,
		usagePath + "?lookback_duration=99999m": 400, usagePath + "/nothing": 404, usagePath + "x": 404,
	} {
		got := g.get(t, target)
		if got.status != status || strings.HasPrefix(target, usagePath+"?") && !json.Valid([]byte(got.body)) {
			t.Errorf("%s: got %d %s", target, got.status, got.body)
		}
	}
	if got := g.ask(t, http.MethodDelete, usagePath, ""); got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("DELETE: got %d", got.status)
	}
	const over = usagePath + "?from=2026-01-01T00:00:00Z&to=2026-01-01T01:00:00Z"
	tag := g.get(t, over).header.Get("ETag")
	if got := g.ask(t, http.MethodGet, over, "", "If-None-Match", tag); got.status != http.StatusNotModified {
		t.Errorf("what the client has: got %d", got.status)
	}
	if got := g.ask(t, http.MethodHead, usagePath, ""); got.status != http.StatusOK || got.body != "" || got.length <= 0 {
		t.Errorf("HEAD: got %d %q", got.status, got.body)
	}
	openapi := g.get(t, usagePath+"/openapi.json")
	if !strings.Contains(openapi.body, `"`+usagePath+`/total"`) || !json.Valid([]byte(openapi.body)) {
		t.Errorf("the OpenAPI document is %.100s", openapi.body)
	}
	out := rgate(t, nil, "usage", "--address", "localhost:1")
	if out.code != 1 || !strings.Contains(out.stderr, "start one, or set the address of its admin API") {
		t.Errorf("rgate usage without a gateway says %+v", out)
	}

	closed := startGateway(t, strings.Replace(usageGateway, "bandwidth: {", "bandwidth: {allow: [192.0.2.1], ", 1))
	if got := closed.get(t, usagePath); got.status != http.StatusForbidden {
		t.Errorf("a client without permission gets %d", got.status)
	}
	plain := startGateway(t, strings.Replace(usageGateway, "bandwidth: {path: /metrics/bandwidth_used, flush_interval: 1s}", "", 1))
	out = rgate(t, nil, "usage", "--config", plain.file)
	if out.code != 1 || !strings.Contains(out.stderr, "set bandwidth in its configuration") {
		t.Errorf("rgate usage of a gateway that keeps no account says %+v", out)
	}
}
