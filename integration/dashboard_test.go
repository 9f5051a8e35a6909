package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/rgate/rgate/internal/testkit"
)

const dashboardGateway = `
name: edge
bandwidth: {store: "sqlite://$DIR/bandwidth.db", flush_interval: 1s}
dashboard: {timezone: Europe/Berlin}
stats: {path: /stats}
routes:
  - {path_prefix: /web, backend: web}
  - {path_prefix: /down, backend: down}
backends:
  - {name: web, match_labels: {app_name: $APP}, quota: {egress: 1KB, period: day, timezone: UTC, thresholds: [50, 100]}}
  - {name: down, match_labels: {app_name: $APP, role: none}}
`

// dashboard fetches the page and returns the text of each section by heading, one line
// for each text node.
func (g *gateway) dashboard(t testing.TB, query string, headers ...string) map[string]string {
	t.Helper()
	got := g.ask(t, http.MethodGet, "/dashboard"+query, "", headers...)
	if got.status != http.StatusOK || got.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("the page: got %d: %s", got.status, got.body)
	}
	root, err := html.Parse(strings.NewReader(got.body))
	must(t, "reading the page", err)
	sections := make(map[string]string)
	for n := range root.Descendants() {
		if n.Type != html.ElementNode || n.Data != "section" {
			continue
		}
		var lines []string
		for inner := range n.Descendants() {
			if text := strings.Join(strings.Fields(inner.Data), " "); inner.Type == html.TextNode && text != "" && inner.Parent.Data != "title" {
				lines = append(lines, strings.ReplaceAll(text, "\u00a0", " "))
			}
		}
		sections[lines[0]] = strings.Join(lines[1:], "\n")
	}
	return sections
}

// hasLines fails the test unless a section contains the given consecutive lines.
func hasLines(t testing.TB, sections map[string]string, heading string, lines ...string) {
	t.Helper()
	if want := strings.Join(lines, "\n"); !strings.Contains("\n"+sections[heading]+"\n", "\n"+want+"\n") {
		t.Errorf("%q has not\n%s\nbut\n%s", heading, want, sections[heading])
	}
}

func TestDashboard(t *testing.T) {
	t.Parallel()
	one := startContainer(t, spec{})
	g := startGateway(t, dashboardGateway)
	g.await(t, "web", 1)
	two := startContainer(t, spec{labels: map[string]string{"rgate.port": "nonsense"}})
	for range 20 {
		g.ask(t, http.MethodPost, "/web?bytes=30", "0123456789")
	}
	for i := range 4 {
		g.get(t, fmt.Sprintf("/down/%d?token=s3cret&n=<script>", i))
	}
	g.get(t, "/nowhere")
	var page map[string]string
	testkit.Eventually(t, "the page has all of it", func() bool {
		page = g.dashboard(t, "?range=5m")
		return strings.Contains(page["In the last 5 minutes"], "Requests\n25\n") && strings.Contains(page["Backends"], two.name) &&
			strings.Contains(page["Quotas"], "60 %")
	})
	hasLines(t, page, "In the last 5 minutes", "Errors", "20 %", "5 failed")
	hasLines(t, page, "In the last 5 minutes", "Received", "200 B")
	hasLines(t, page, "Backends", "down", "0 of 0 healthy", "not selected") // near misses follow
	hasLines(t, page, "Backends", "unhealthy", "0", "4", "100 %")
	hasLines(t, page, "Backends", "healthy", one.name, one.ip+":8080")
	hasLines(t, page, "Backends", "unhealthy", two.name)
	hasLines(t, page, "Quotas", "60 %", ", 600 B of 1 KB")
	hasLines(t, page, "Recent errors", "GET /down/3?token=REDACTED&n=<script>")
	if web := page["Backends"]; !strings.Contains(web, "600 B\n200 B\n") {
		t.Errorf("web has not sent 600 B and received 200 B: %s", web)
	}
	web := g.dashboard(t, "?range=1h&service=web")
	hasLines(t, web, "In the last 1 hour", "Requests", "20")
	if strings.Contains(web["Backends"], "down") {
		t.Errorf("of web: %s", web["Backends"])
	}
	// Statistics survive a reload, and requests of the page itself are not counted.
	g.reload(t)
	hasLines(t, g.dashboard(t, "?range=24h"), "In the last 24 hours", "Requests", "25")

	for _, tc := range []struct {
		method, target string
		want           int
	}{
		{"HEAD", "/dashboard", 200}, {"POST", "/dashboard", 405}, {"GET", "/dashboard/x", 404}, {"GET", "/dashboards", 404}, {"GET", "/dashboard?range=1y", 400},
	} {
		if got := g.ask(t, tc.method, tc.target, ""); got.status != tc.want {
			t.Errorf("%s %s: got %d, want %d", tc.method, tc.target, got.status, tc.want)
		}
	}
}

// Clients without access cannot detect the page. The handler also works without a gateway
// in a Caddyfile, with statistics of rgate_stats.
func TestDashboardIsGuarded(t *testing.T) {
	t.Parallel()
	g := startGateway(t, `
dashboard:
  path: /ops
  api_key: {keys: [{name: ops, sha256: `+secretKeyHash+`}]}
bandwidth: {store: "sqlite://$DIR/bandwidth.db"}
routes: [{path_prefix: /, backend: web}]
backends: [{name: web, dial: ["127.0.0.1:1"]}]
`)
	if got := g.get(t, "/ops"); got.status != http.StatusUnauthorized || strings.Contains(got.body, "web") {
		t.Errorf("without a key: got %d %s", got.status, got.body)
	}
	if got := g.ask(t, http.MethodGet, "/ops", "", "X-API-Key", secretKey); got.status != http.StatusOK || !strings.Contains(got.body, "<h1>rgate</h1>") {
		t.Errorf("with a key: got %d %s", got.status, got.body)
	}

	alone := launch(t, "Caddyfile", `
{
	admin localhost:$ADMIN
}
:$PORT {
	rgate_bandwidth {
		store sqlite://$DIR/bandwidth.db
		flush_interval 1s
	}
	rgate_dashboard /figures
	rgate_stats /stats
	respond /far/figures "behind"
	respond "hello"
}
`, nil, "run", "--config", "$FILE")
	for range 3 {
		alone.get(t, "/")
	}
	if got := alone.get(t, "/far/figures"); got.body != "behind" {
		t.Errorf("another path: got %d %s", got.status, got.body)
	}
	testkit.Eventually(t, "the page has all of it", func() bool {
		body := alone.get(t, "/figures").body
		return strings.Contains(body, "<b>4</b>") && strings.Contains(body, "<b>21\u00a0B</b>")
	})
}
