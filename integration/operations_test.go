package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rgate/rgate/internal/testkit"
)

// secretKeyHash is the output of `rgate hash-key` for secretKey.
const (
	secretKey     = "secret"
	secretKeyHash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
)

const operationsGateway = `
name: edge
operations:
  allow: [private_ranges]
  registration: {ttl: 2m}
  api_key: {keys: [{name: ops, sha256: ` + secretKeyHash + `}]}
routes:
  - {path_prefix: /web, backend: web}
  - {path_prefix: /down, backend: down}
  - {path_prefix: /self, backend: self}
  - path_prefix: /keyed
    backend: down
    api_key: {query: q, keys: [{name: client, sha256: ` + secretKeyHash + `}]}
backends:
  - {name: web, match_labels: {app_name: $APP}}
  - {name: down, match_labels: {app_name: $APP, role: none}}
  - {name: self, register: true}
`

// report fetches an operations endpoint and decodes its JSON response.
func (g *gateway) report(t testing.TB, name string, status int, into any) {
	t.Helper()
	got := g.ask(t, http.MethodGet, "/gateway"+name, "", "X-API-Key", secretKey)
	if got.status != status || got.header.Get("Content-Type") != "application/json" || got.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s: got %d %v %s, want %d", name, got.status, got.header, got.body, status)
	}
	must(t, "reading "+got.body, json.Unmarshal([]byte(got.body), into))
}

type healthReport struct {
	Status   string
	Backends map[string]struct {
		Status  string
		Healthy int `json:"healthy_instances"`
		Total   int `json:"total_instances"`
	}
	Dependencies []struct{ Name, Status, Error string }
}

type servicesReport struct {
	Count    int
	Services []struct {
		Name, Status string
		Healthy      int   `json:"healthy_instances"`
		Total        int   `json:"total_instances"`
		InFlight     int64 `json:"in_flight"`
		Instances    []struct{ Address, Container, Status, Reason, Registered string }
	}
}

func TestOperations(t *testing.T) {
	t.Parallel()
	one := startContainer(t, spec{})
	g := startGateway(t, operationsGateway)
	g.await(t, "web", 1)

	var h healthReport
	g.report(t, "/health", http.StatusOK, &h)
	if h.Status != "degraded" || h.Backends["web"].Status != "healthy" || h.Backends["down"].Status != "unhealthy" || h.Backends["web"].Total != 1 {
		t.Errorf("the health is %+v", h)
	}
	if len(h.Dependencies) != 1 || h.Dependencies[0].Status != "healthy" || !strings.HasPrefix(h.Dependencies[0].Name, "docker ") {
		t.Errorf("it depends on %+v", h.Dependencies)
	}
	var said map[string]any
	g.report(t, "/health/live", http.StatusOK, &said)
	g.report(t, "/health/ready", http.StatusOK, &said)

	two := startContainer(t, spec{labels: map[string]string{"rgate.port": "nonsense"}})
	testkit.Eventually(t, "the container that cannot be reached is reported", func() bool {
		var s servicesReport
		g.report(t, "/services", http.StatusOK, &s)
		web := s.Services[0]
		return s.Count == 3 && web.Name == "web" && web.Status == "degraded" && web.Healthy == 1 && web.Total == 2 &&
			web.Instances[0].Container == one.name && web.Instances[0].Address == one.ip+":8080" &&
			web.Instances[1].Container == two.name && strings.Contains(web.Instances[1].Reason, "rgate.port")
	})

	for target, n := range map[string]int{"/web": 3, "/web?status=404": 1, "/down?token=s3cret": 2} {
		for range n {
			g.get(t, target)
		}
	}
	var m struct {
		Total       int                `json:"total_requests"`
		Failed      int                `json:"failed_requests"`
		SuccessRate float64            `json:"success_rate"`
		Refused     map[string]float64 `json:"refused_requests"`
		Backends    map[string]struct {
			Requests  int
			ErrorRate float64 `json:"error_rate"`
		}
	}
	g.report(t, "/metrics", http.StatusOK, &m)
	if m.Total != 6 || m.Failed != 3 || m.SuccessRate != 0.5 || m.Backends["down"].ErrorRate != 1 || m.Backends["web"].Requests != 4 {
		t.Errorf("the figures are %+v", m)
	}
	g.checkLogs(t, one)

	// Requests without access and invalid requests are rejected.
	for _, tc := range []struct {
		what, method, target string
		key                  string
		want                 int
	}{
		{"no key", "GET", "/gateway/health", "", http.StatusUnauthorized},
		{"a wrong key", "GET", "/gateway/services", "other", http.StatusUnauthorized},
		{"another method", "POST", "/gateway/health", secretKey, http.StatusMethodNotAllowed},
		{"no report", "GET", "/gateway/nothing", secretKey, http.StatusNotFound},
		{"no path", "GET", "/gateway", secretKey, http.StatusNotFound},
		{"a longer word", "GET", "/gateways", secretKey, http.StatusNotFound},
		{"a misspelt parameter", "GET", "/gateway/logs?stauts=404", secretKey, http.StatusBadRequest},
		{"a status that is none", "GET", "/gateway/logs?status=abc", secretKey, http.StatusBadRequest},
	} {
		if got := g.ask(t, tc.method, tc.target, "", "X-API-Key", tc.key); got.status != tc.want {
			t.Errorf("%s: got %d %s, want %d", tc.what, got.status, got.body, tc.want)
		}
	}
	for _, name := range []string{"health?", "logs?status=404&"} {
		admin, err := g.client.Get(g.adminURL("/rgate/gateway/" + name + "gateway=edge"))
		must(t, "asking the admin API", err)
		admin.Body.Close()
		if admin.StatusCode != http.StatusOK {
			t.Errorf("the admin API says %d to %s", admin.StatusCode, name)
		}
	}
	one.kill(t)
	testkit.Eventually(t, "the gateway is unhealthy", func() bool {
		return g.ask(t, http.MethodGet, "/gateway/health", "", "X-API-Key", secretKey).status == http.StatusServiceUnavailable
	})
}

// Query parameters that policies read are redacted in every log.
func TestOperationsLogHidesKeys(t *testing.T) {
	t.Parallel()
	g := startGateway(t, operationsGateway)
	follow, err := g.client.Do(g.request(t, http.MethodGet, "/gateway/logs?follow=1", "", "X-API-Key", secretKey))
	must(t, "following the log", err)
	defer follow.Body.Close()
	if got := g.get(t, "/keyed/x?q="+secretKey); got.status != http.StatusServiceUnavailable {
		t.Fatalf("got %d", got.status)
	}
	const want = "/keyed/x?q=REDACTED"
	var logs logsReport
	g.report(t, "/logs", http.StatusOK, &logs)
	if len(logs.Requests) != 1 || logs.Requests[0].URL != want || logs.Responses[0].URL != want || logs.Errors[0].URL != want {
		t.Errorf("the log has %+v", logs)
	}
	lines := bufio.NewScanner(follow.Body)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "data: ") {
	}
	if !strings.Contains(lines.Text(), `"url":"`+want+`"`) {
		t.Errorf("who follows sees %s", lines.Text())
	}
}

type logsReport struct {
	Requests, Responses, Errors []struct {
		ID                      uint64
		Service, URL, Container string
		Status                  int
		Size                    int64
		Error                   string
		Took                    float64 `json:"took_ms"`
	}
}

func (g *gateway) checkLogs(t testing.TB, web *box) {
	t.Helper()
	var logs logsReport
	g.report(t, "/logs", http.StatusOK, &logs)
	if len(logs.Requests) != 6 || len(logs.Responses) != 6 || len(logs.Errors) != 3 {
		t.Fatalf("there are %d requests, %d responses, %d errors", len(logs.Requests), len(logs.Responses), len(logs.Errors))
	}
	g.report(t, "/logs?service=web&status=2xx&since=1m", http.StatusOK, &logs)
	if len(logs.Requests) != 3 || len(logs.Responses) != 3 || logs.Responses[0].Container != web.name || logs.Responses[0].Size == 0 || logs.Responses[0].Took <= 0 {
		t.Errorf("of web, there are %+v", logs.Responses)
	}
	g.report(t, "/logs?service=down&status=503", http.StatusOK, &logs)
	if len(logs.Errors) != 2 || logs.Errors[0].URL != "/down?token=REDACTED" || logs.Errors[0].Error != "no upstreams available" {
		t.Errorf("of down, there are %+v", logs.Errors)
	}
}

// Clients can follow the log. They must not delay a reload or shutdown.
func TestOperationsLogIsFollowed(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := startGateway(t, operationsGateway)
	g.await(t, "web", 1)
	follow := func() *bufio.Scanner {
		response, err := g.client.Do(g.request(t, http.MethodGet, "/gateway/logs?follow=1&service=web", "", "X-API-Key", secretKey))
		must(t, "following the log", err)
		t.Cleanup(func() { response.Body.Close() })
		lines := bufio.NewScanner(response.Body)
		if !lines.Scan() || response.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("got %d %v", response.StatusCode, response.Header)
		}
		return lines
	}
	lines := follow()
	g.get(t, "/down")
	g.get(t, "/web?status=418")
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "data: ") {
	}
	var e struct {
		URL    string
		Status int
	}
	must(t, "reading "+lines.Text(), json.Unmarshal([]byte(strings.TrimPrefix(lines.Text(), "data: ")), &e))
	if e.URL != "/web?status=418" || e.Status != http.StatusTeapot {
		t.Errorf("the first entry of web is %+v", e)
	}
	g.reload(t)
	for lines.Scan() { // until the reload ends the stream
	}
	again := follow()
	g.end(t) // fails if the shutdown takes too long
	for again.Scan() {
	}
}

func TestRegistration(t *testing.T) {
	t.Parallel()
	g := startGateway(t, operationsGateway)
	if got := g.get(t, "/self"); got.status != http.StatusServiceUnavailable {
		t.Errorf("before anybody registers: %d", got.status)
	}
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "at your service") }))
	t.Cleanup(instance.Close)
	send := func(method, target, body string) response {
		return g.ask(t, method, "/gateway/services/"+target, body, "X-API-Key", secretKey)
	}
	for _, tc := range []struct {
		method, target, body string
		want                 int
	}{
		{"PUT", "self/one", `{"url": "` + instance.URL + `"}`, http.StatusCreated},
		{"PUT", "self/one", `{"url": "` + instance.URL + `", "health_check_url": "` + instance.URL + `/", "ttl": "2s"}`, http.StatusOK},
		{"POST", "self/one/heartbeat", "", http.StatusNoContent},
		{"POST", "self/two/heartbeat", "", http.StatusNotFound},
		{"PUT", "web/one", `{"url": "` + instance.URL + `"}`, http.StatusNotFound},
		{"PUT", "unknown/one", `{"url": "` + instance.URL + `"}`, http.StatusNotFound},
		{"PUT", "self/two", `{"url": "ftp://10.0.0.1"}`, http.StatusBadRequest},
		{"PUT", "self/two", `{"urls": "x"}`, http.StatusBadRequest},
		{"PUT", "self/two", `{"url": "` + instance.URL + `", "ttl": "1h"}`, http.StatusBadRequest},
		{"PUT", "self/two", `{"url": "` + instance.URL + `", "health_check_url": "http://example.com/"}`, http.StatusBadRequest},
		{"PUT", "self/two", `{"url": "` + instance.URL + `"} {}`, http.StatusBadRequest},
		{"PUT", "self/two", `{"url": "` + instance.URL + `"} and more`, http.StatusBadRequest},
		{"PUT", "self/two", `{"url": "` + instance.URL + `", "ttl": 121}`, http.StatusBadRequest},
		{"PUT", "self/two", `{"url": "http://127.0.0.1:65536"}`, http.StatusBadRequest},
		{"PATCH", "self/one", "", http.StatusMethodNotAllowed},
	} {
		if got := send(tc.method, tc.target, tc.body); got.status != tc.want {
			t.Errorf("%s %s %s: got %d %s, want %d", tc.method, tc.target, tc.body, got.status, got.body, tc.want)
		}
	}
	if got := g.ask(t, "PUT", "/gateway/services/self/x", `{"url": "`+instance.URL+`"}`); got.status != http.StatusUnauthorized {
		t.Errorf("without a key: %d", got.status)
	}
	ends := time.Now().Add(4 * time.Second) // twice the registration's TTL
	for time.Now().Before(ends) {
		if got := send("POST", "self/one/heartbeat", ""); got.status != http.StatusNoContent {
			t.Fatalf("a heartbeat: %d", got.status)
		}
		g.awaitStatus(t, "/self", http.StatusOK)
		time.Sleep(200 * time.Millisecond) // interval between heartbeats
	}
	if got := g.get(t, "/self"); got.status != http.StatusOK || got.body != "at your service" {
		t.Errorf("got %d %q", got.status, got.body)
	}
	send("PUT", "self/one", `{"url": "`+instance.URL+`"}`)
	g.reload(t)
	if got := g.get(t, "/self"); got.status != http.StatusOK {
		t.Errorf("after a reload: %d", got.status)
	}
	var s servicesReport
	g.report(t, "/services", http.StatusOK, &s)
	if self := s.Services[2]; self.Total != 1 || self.Instances[0].Registered != "one" {
		t.Errorf("the service is %+v", self)
	}
	send("PUT", "self/one", `{"url": "`+instance.URL+`", "ttl": "1s"}`)
	testkit.Eventually(t, "it is forgotten without a heartbeat", func() bool { return g.get(t, "/self").status == http.StatusServiceUnavailable })
	send("PUT", "self/one", `{"url": "`+instance.URL+`"}`)
	if got := send("DELETE", "self/one", ""); got.status != http.StatusNoContent || g.get(t, "/self").status != http.StatusServiceUnavailable {
		t.Errorf("removing it: %d", got.status)
	}
}
