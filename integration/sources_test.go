package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

// otherGateways serves fake metrics of Kong and Traefik.
type otherGateways struct {
	*httptest.Server
	kong, traefik atomic.Int64
	down          atomic.Bool
	scrapes       atomic.Int64
}

func startOtherGateways(t *testing.T) *otherGateways {
	o := new(otherGateways)
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.scrapes.Add(1)
		switch {
		case o.down.Load():
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/kong":
			fmt.Fprintf(w, "# TYPE kong_bandwidth counter\nkong_bandwidth{type=\"egress\",service=\"bun-service\",route=\"bun-route\"} %d\n", o.kong.Load())
		default:
			if user, password, _ := r.BasicAuth(); user != "ann" || password != "secret" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprintf(w, "# TYPE traefik_service_responses_bytes_total counter\ntraefik_service_responses_bytes_total{code=\"200\",method=\"GET\",protocol=\"http\",service=\"whoami@docker\"} %d\n", o.traefik.Load())
		}
	}))
	t.Cleanup(o.Close)
	return o
}

const sourcesGateway = `
bandwidth:
  path: /metrics/bandwidth_used
  store: "sqlite://$DIR/bandwidth.db"
  sources:
    - {name: kong-eu, url: "$OTHERS/kong", interval: 1s}
    - {name: traefik, url: "$OTHERS/traefik", interval: 1s, basic_auth: {username: ann, password: "{env.TRAEFIK_PASSWORD}"}}
operations: {}
`

// sourceStatus returns the status of a source.
func (g *gateway) sourceStatus(t *testing.T, name string) string {
	t.Helper()
	var all []struct {
		Name, URL, Status, Error string
		LastScrape               string `json:"last_scrape"`
		Series                   int
	}
	must(t, "reading the sources", json.Unmarshal([]byte(g.get(t, usagePath+"/sources").body), &all))
	for _, one := range all {
		if one.Name == name {
			return one.Status
		}
	}
	return ""
}

func TestSources(t *testing.T) {
	t.Parallel()
	others := startOtherGateways(t)
	others.kong.Store(1_000_000)
	others.traefik.Store(500)
	config := strings.ReplaceAll(sourcesGateway, "$OTHERS", others.URL)
	g := startGateway(t, config, "TRAEFIK_PASSWORD=secret")
	await := func(what, query string, want int64) {
		t.Helper()
		testkit.Eventually(t, what, func() bool { return sumUsage(g.usage(t, query), "egress") == want })
	}
	up := func() {
		t.Helper()
		testkit.Eventually(t, "both are up", func() bool {
			return g.sourceStatus(t, "kong-eu") == "up" && g.sourceStatus(t, "traefik") == "up"
		})
	}
	const kong, traefik = "?service=bun-service&route=bun-route", "?service=whoami@docker&gateway=traefik"
	up()
	await("what was counted before is not", kong, 0)
	others.kong.Add(1277)
	others.traefik.Add(300)
	await("Kong's bytes are there", kong, 1277)
	await("Traefik's bytes are there", traefik, 300)

	others.kong.Store(5)
	await("a restart of Kong adds no negative point", kong, 1282)

	others.down.Store(true)
	testkit.Eventually(t, "they are down", func() bool { return g.sourceStatus(t, "kong-eu") == "down" })
	if health := g.get(t, "/gateway/health"); !strings.Contains(health.body, `"degraded"`) || !strings.Contains(health.body, "source kong-eu") {
		t.Errorf("health is %s", health.body)
	}
	others.kong.Add(10)
	others.down.Store(false)
	await("what came meanwhile is there", kong, 1292)

	// After a reload, sources continue from the last counted value.
	g.write(t, config+"\nadmin: localhost:$ADMIN\ndefault_response: {body: changed}\n")
	g.signal(t, syscall.SIGUSR1)
	testkit.Eventually(t, "the configuration is changed", func() bool { return g.get(t, "/nothing").body == "changed" })
	others.kong.Add(20)
	await("after a reload", kong, 1312)
	for _, item := range g.usage(t, kong+"&lookback_duration=5m") {
		if item.Used != nil && *item.Used < 0 {
			t.Errorf("%s has %d", item.Time, *item.Used)
		}
	}
	text := g.get(t, usagePath+"/sources").body + g.output.String()
	if strings.Contains(text, "secret") {
		t.Errorf("a password is logged: %s", text)
	}
	testkit.Eventually(t, "the metric says that both are up", func() bool { return g.metric(t, "rgate_bandwidth_source_up") == 2 })
}

// Bytes that other gateways count while rgate is down are added after its restart.
func TestSourcesOutliveTheGateway(t *testing.T) {
	t.Parallel()
	others := startOtherGateways(t)
	others.kong.Store(100)
	config := strings.ReplaceAll(strings.ReplaceAll(sourcesGateway, "$OTHERS", others.URL), "$DIR", t.TempDir())
	g := startGateway(t, config, "TRAEFIK_PASSWORD=secret")
	testkit.Eventually(t, "it is up", func() bool { return g.sourceStatus(t, "kong-eu") == "up" })
	g.signal(t, os.Interrupt)
	g.awaitExit(t)
	others.kong.Add(7)
	g = startGateway(t, config, "TRAEFIK_PASSWORD=secret")
	testkit.Eventually(t, "the bytes are there", func() bool {
		return sumUsage(g.usage(t, "?service=bun-service"), "egress") == 7
	})
}

// An rgate gateway can be a source of another one.
func TestRgateIsASource(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	origin := startGateway(t, "routes: [{path_prefix: /web, backend: web}]\nbackends: [{name: web, match_labels: {app_name: $APP}}]\n")
	origin.await(t, "web", 1)
	g := startGateway(t, fmt.Sprintf("bandwidth: {path: %s, store: \"sqlite://$DIR/b.db\", sources: [{name: origin, url: %q, interval: 1s}]}\n", usagePath, origin.adminURL("/metrics")))
	testkit.Eventually(t, "it is up", func() bool { return g.sourceStatus(t, "origin") == "up" })
	var received int64
	for range 5 {
		received += int64(len(origin.get(t, "/web/file?bytes=1234").body))
	}
	testkit.Eventually(t, "its bytes are there", func() bool {
		return sumUsage(g.usage(t, "?service=web&route=/web&gateway=origin"), "egress") == received
	})
	response, err := g.client.Get(g.adminURL("/rgate/bandwidth/names"))
	must(t, "asking the admin API", err)
	defer response.Body.Close()
	names, _ := io.ReadAll(response.Body)
	if !strings.Contains(string(names), `"origin"`) {
		t.Errorf("the names are %s", names)
	}
}

func TestSourceOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"{name: a, url: \"a:1/metrics\"}":                              "must be a URL such as",
		"{url: \"http://a/metrics\"}":                                  "name is required: set the name",
		"{name: a, url: \"http://a/m\", interval: 10ms}":               "must be at least 1s",
		"{name: a, url: \"http://u:p@a/m\"}":                           "must not contain credentials: use basic_auth",
		"{name: a, url: \"http://a/\", basic_auth: {usr: x}}":          "usr",
		"{name: a, url: \"http://a/\"}, {name: a, url: \"http://b/\"}": "must differ from the name of sources[0]",
	} {
		out := validate(t, "bandwidth: {sources: ["+text+"]}\n")
		if out.code == 0 || !strings.Contains(out.stdout+out.stderr, says) || !strings.Contains(out.stdout+out.stderr, "rgate.yaml:1: ") {
			t.Errorf("%s: %+v", text, out)
		}
	}
}

func TestSourcesNeedWhatTheirPlaceholdersStandFor(t *testing.T) {
	t.Parallel()
	out := validate(t, `bandwidth: {sources: [{name: a, url: "http://a/", basic_auth: {username: x, password: "{env.RGATE_TEST_UNSET}"}}]}`+"\n")
	if out.code == 0 || !strings.Contains(out.stderr, "source a: basic_auth.password has an unknown or empty placeholder") {
		t.Errorf("got %+v", out)
	}
}

// validate runs `rgate validate` on a configuration.
func validate(t *testing.T, config string) outcome {
	file := t.TempDir() + "/rgate.yaml"
	must(t, "writing the configuration", os.WriteFile(file, []byte(config), 0o600))
	return rgate(t, nil, "validate", "-c", file)
}
