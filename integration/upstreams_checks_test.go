package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

func TestE16ActiveChecksOfContainersAreRejected(t *testing.T) {
	t.Parallel()
	requireEngine(t)
	const (
		gatewayWants = "active health checks require static addresses, but backend \"web\" has containers or registered instances: remove active"
		proxyWants   = "active health checks do not apply to containers: remove them, and use the HEALTHCHECK"
	)
	for _, c := range []struct{ name, file, config, want, at string }{
		{"yaml", "rgate.yaml", `
routes: [{path_prefix: /, backend: web}]
backends:
  - name: web
    match_labels: {app: web}
    proxy: {health_checks: {active: {uri: /healthz}}}
`, gatewayWants, "rgate.yaml:6"},
		{"yaml with registration", "rgate.yaml", `
operations: {registration: true, api_key: {keys: [{name: ops, sha256: ` + secretKeyHash + `}]}}
routes: [{path_prefix: /, backend: web}]
backends: [{name: web, register: true, proxy: {health_checks: {active: {uri: /healthz}}}}]
`, gatewayWants, "rgate.yaml:4"},
		{"caddyfile", "Caddyfile", `:8080 {
	rgate {
		route / web
		backend web {
			match_labels app=web
			proxy {
				health_uri /healthz
			}
		}
	}
}
`, gatewayWants, "Caddyfile:6"},
		{"caddyfile of a proxy", "Caddyfile", `:8080 {
	reverse_proxy {
		dynamic docker_labels app=web
		health_uri /healthz
	}
}
`, proxyWants, "docker_labels"},
		{"json", "rgate.json", `{"apps": {"http": {"servers": {"srv0": {"listen": [":8080"], "routes": [{"handle": [{
			"handler": "rgate", "routes": [{"path_prefix": "/", "backend": "web"}],
			"backends": [{"name": "web", "match_labels": {"app": "web"}, "proxy": {"health_checks": {"active": {"uri": "/healthz"}}}}]}]}]}}}}}`,
			gatewayWants, "backends[0].proxy.health_checks.active"},
	} {
		file := filepath.Join(t.TempDir(), c.file)
		must(t, "writing", os.WriteFile(file, []byte(c.config), 0o600))
		args := []string{"validate", "--config", file}
		if c.file == "rgate.yaml" {
			args = append(args, "--adapter", "rgate")
		}
		got := rgate(t, nil, args...)
		if text := strings.ReplaceAll(got.stderr+got.stdout, `\"`, `"`); got.code == 0 || !strings.Contains(text, c.want) || !strings.Contains(text, c.at) {
			t.Errorf("%s: exit code %d, %s", c.name, got.code, text)
		}
	}
}

// instance returns the status and the reason of an instance of a backend.
func (g *gateway) instance(t *testing.T, backend, address string) (status, reason string) {
	t.Helper()
	var all servicesReport
	g.report(t, "/services", http.StatusOK, &all)
	for _, s := range all.Services {
		for _, i := range s.Instances {
			if s.Name == backend && i.Address == address {
				return i.Status, i.Reason
			}
		}
	}
	t.Fatalf("no instance %s of %s in %+v", address, backend, all)
	return "", ""
}

func TestF4ReportsShowWhatRoutingUses(t *testing.T) {
	t.Parallel()
	b := startContainer(t, spec{labels: map[string]string{"role": "web"}})
	refusing := startContainer(t, spec{labels: map[string]string{"role": "refusing", "rgate.port": "9"}})
	limit := startContainer(t, spec{labels: map[string]string{"role": "limit"}})
	busy := startContainer(t, spec{labels: map[string]string{"role": "busy", "rgate.max_requests": "1"}})
	var broken atomic.Bool
	static := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	g := startGateway(t, strings.ReplaceAll(`
name: edge
operations: {allow: [private_ranges], registration: true, api_key: {keys: [{name: ops, sha256: `+secretKeyHash+`}]}}
routes:
  - {path_prefix: /web, backend: web}
  - {path_prefix: /static, backend: static}
  - {path_prefix: /self, backend: self}
  - {path_prefix: /refusing, backend: refusing}
  - {path_prefix: /busy, backend: busy}
  - {path_prefix: /limit, backend: limit}
  - {path_prefix: /patient, backend: patient}
backends:
  - {name: web, match_labels: {app_name: $APP, role: web}, proxy: &checks {health_checks: {passive: {fail_duration: 1h, max_fails: 2, unhealthy_status: [5]}}}}
  - {name: static, dial: ["$STATIC"], proxy: *checks}
  - {name: self, register: true, proxy: *checks}
  - {name: refusing, match_labels: {app_name: $APP, role: refusing}}
  - {name: busy, match_labels: {app_name: $APP, role: busy}}
  - {name: limit, match_labels: {app_name: $APP, role: limit}, proxy: {health_checks: {passive: {unhealthy_request_count: 1}}}}
  - {name: patient, dial: ["127.0.0.1:1"], proxy: {load_balancing: {try_duration: 1m, try_interval: 30s}}}
`, "$STATIC", static))
	for _, backend := range []string{"web", "refusing", "busy", "limit", "static"} {
		g.await(t, backend, 1)
	}
	registered := b.ip + ":8080"
	if got := g.ask(t, http.MethodPut, "/gateway/services/self/one", fmt.Sprintf(`{"url": "http://%s"}`, registered), "X-API-Key", secretKey); got.status != 201 {
		t.Fatalf("registering: %d %s", got.status, got.body)
	}
	g.await(t, "self", 1)
	want := func(when, backend, address, status, reason string) {
		t.Helper()
		if gotStatus, gotReason := g.instance(t, backend, address); gotStatus != status || !strings.Contains(gotReason, reason) || (reason == "") != (gotReason == "") {
			t.Errorf("%s: %s is %s, %q, want %s, %q", when, backend, gotStatus, gotReason, status, reason)
		}
	}
	web, full, limited := b.ip+":8080", busy.ip+":8080", limit.ip+":8080"
	for backend, address := range map[string]string{"web": web, "static": static, "self": registered, "refusing": refusing.ip + ":9", "busy": full, "limit": limited, "patient": "127.0.0.1:1"} {
		want("at first", backend, address, "healthy", "")
	}

	broken.Store(true)
	for range 2 {
		g.get(t, "/static")
		g.get(t, "/web?status=500")
	}
	wantStatus(t, "a container with failed checks", g.get(t, "/web"), 503)
	wantStatus(t, "a registered instance with failed checks", g.get(t, "/self"), 503)
	want("failed checks", "web", web, "unhealthy", "passive health checks fail: 2 recent failures")
	want("failed checks", "static", static, "unhealthy", "passive health checks fail: 2 recent failures")
	want("failed checks", "self", registered, "unhealthy", "passive health checks fail")
	if n := g.metric(t, "rgate_backend_upstreams", "backend", "web"); n != 0 {
		t.Errorf("the metric counts %v upstreams, want 0", n)
	}

	wantStatus(t, "a dead address", g.get(t, "/refusing"), 503)
	want("a failed dial", "refusing", refusing.ip+":9", "unhealthy", "connection refused")

	slow := make(chan response, 2)
	for _, path := range []string{"/busy?delay=3s", "/limit?delay=3s"} {
		go func() {
			got, _ := do(g.client, g.request(t, http.MethodGet, path, ""))
			slow <- got
		}()
	}
	for backend, address := range map[string]string{"busy": full, "limit": limited} {
		testkit.Eventually(t, backend+" is full", func() bool {
			status, reason := g.instance(t, backend, address)
			return status == "unhealthy" && reason == "the maximum of 1 requests in flight is reached"
		})
	}
	for range 2 {
		if got := <-slow; got.status != 200 {
			t.Errorf("the slow request: got %d", got.status)
		}
	}
	want("after the request", "busy", full, "healthy", "")
}

func TestE17ARetryGoesToTheNextOnTheRing(t *testing.T) {
	t.Parallel()
	drops := func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }
	upstreams := []string{
		serve(t, statusInPath), serve(t, statusInPath), // good
		deadAddress(t),  // refuses
		serve(t, drops), // closes connections
	}
	var attempts atomic.Int32
	again := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if attempts.Add(1) <= 3 {
			panic(http.ErrAbortHandler)
		}
	})
	site := func(path, policy, more string) string {
		return fmt.Sprintf("\thandle /%s/* {\n\t\treverse_proxy %s {\n\t\t\tlb_policy %s\n\t\t\t%s\n\t\t}\n\t}\n", path, strings.Join(upstreams, " "), policy, more)
	}
	const ring = "ring_hash {http.request.header.X-User}"
	g := launch(t, "Caddyfile", "{\n\tadmin localhost:$ADMIN\n}\n:$PORT {\n"+
		site("retries", ring, "lb_retries 3")+
		site("loaded", ring+" {\n load_factor 1.25\n }", "lb_retries 3")+
		site("duration", ring, "lb_try_duration 5s\n lb_try_interval 10ms")+
		site("latency", "least_latency", "lb_retries 3")+
		fmt.Sprintf("\thandle /again/* {\n\t\treverse_proxy %s {\n\t\t\tlb_policy %s\n\t\t\tlb_retries 4\n\t\t}\n\t}\n", again, ring)+
		"\trgate {\n\t\troute / web\n\t\tbackend web {\n\t\t\tdial "+strings.Join(upstreams, " ")+"\n\t\t\tretries 3\n\t\t\tlb_policy "+ring+"\n\t\t}\n\t}\n}\n",
		nil, "run", "--config", "$FILE")
	for _, path := range []string{"/retries", "/loaded", "/duration", "/latency", "/gateway"} {
		seen := map[int]int{}
		for i := range 40 {
			seen[g.ask(t, http.MethodGet, path+"/200", "", "X-User", fmt.Sprint(i)).status]++
		}
		if seen[200] != 40 {
			t.Errorf("%s: got %v, want 40 of status 200", path, seen)
		}
	}
	// If all upstreams have been tried, they are tried again.
	wantStatus(t, "the only upstream", g.get(t, "/again/200"), 200)
}
