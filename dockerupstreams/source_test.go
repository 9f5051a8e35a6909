package dockerupstreams

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/dockerupstreams/dockertest"
	"github.com/rgate/rgate/internal/testkit"
)

func TestCaddyfile(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want Source
		err  string
	}{
		"one line": {`docker_labels app=web env=production`,
			Source{Selector: Selector{MatchLabels: map[string]string{"app": "web", "env": "production"}}}, ""},
		"block": {`docker_labels app=web {
			match_labels env=production "note=a b=c"
			match_labels empty=
			port 8080
			network front
			scheme h2c
			health any
			host_port
			endpoint unix:///a.sock
			include one_offs build_steps
			endpoint tcp://b:2376 /certs {
				routed front back
			}
		}`, Source{
			Selector: Selector{
				MatchLabels: map[string]string{"app": "web", "env": "production", "note": "a b=c", "empty": ""},
				Port:        8080, Network: "front", Scheme: "h2c", Health: "any", HostPort: true,
				Include: []string{"one_offs", "build_steps"},
			},
			Endpoints: []Endpoint{{Host: "unix:///a.sock"}, {Host: "tcp://b:2376", CertPath: "/certs", Routed: []string{"front", "back"}}},
		}, ""},
		"no labels":        {`docker_labels`, Source{}, "match_labels is required"},
		"half a label":     {`docker_labels app`, Source{}, "invalid label 'app': must be name=value"},
		"no name":          {`docker_labels =web`, Source{}, "must be name=value"},
		"two values":       {`docker_labels app=a app=b`, Source{}, "label 'app' is set twice"},
		"unknown option":   {"docker_labels app=a {\n labels b=c\n}", Source{}, "unrecognized docker_labels option 'labels': use match_labels"},
		"bad port":         {"docker_labels app=a {\n port http\n}", Source{}, "invalid port 'http': must be from 1 to 65535"},
		"port 0":           {"docker_labels app=a {\n port 0\n}", Source{}, "must be from 1 to 65535"},
		"bad scheme":       {"docker_labels app=a {\n scheme gopher\n}", Source{}, "use http, https or h2c"},
		"bad health":       {"docker_labels app=a {\n health fine\n}", Source{}, "use healthy or any"},
		"no port":          {"docker_labels app=a {\n port\n}", Source{}, "wrong argument count"},
		"no network":       {"docker_labels app=a {\n network\n}", Source{}, "wrong argument count"},
		"no block labels":  {"docker_labels {\n match_labels\n}", Source{}, "wrong argument count"},
		"host_port 80":     {"docker_labels app=a {\n host_port 80\n}", Source{}, "wrong argument count"},
		"two folders":      {"docker_labels app=a {\n endpoint h c d\n}", Source{}, "unexpected argument 'd'"},
		"no include":       {"docker_labels app=a {\n include\n}", Source{}, "wrong argument count"},
		"bad include":      {"docker_labels app=a {\n include all\n}", Source{}, "unknown include \"all\": use one_offs, build_steps or local_addresses"},
		"bad block labels": {"docker_labels app=a {\n match_labels b\n}", Source{}, "must be name=value"},
	} {
		t.Run(name, func(t *testing.T) {
			var got Source
			err := got.UnmarshalCaddyfile(caddyfile.NewTestDispenser(c.text))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error is %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got.Selector, c.want.Selector) || !reflect.DeepEqual(got.Endpoints, c.want.Endpoints) {
				t.Errorf("%+v %+v, %v, want %+v %+v", got.Selector, got.Endpoints, err, c.want.Selector, c.want.Endpoints)
			}
		})
	}
}

// newContext returns a Caddy context that is canceled at the end of the test, which
// cleans up its modules.
func newContext(t testing.TB) caddy.Context {
	t.Helper()
	base, err := caddy.ProvisionContext(&caddy.Config{Admin: &caddy.AdminConfig{Disabled: true}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(base)
	t.Cleanup(cancel)
	return ctx
}

func loadSource(t testing.TB, config string) *Source {
	t.Helper()
	module, err := newContext(t).LoadModuleByID("http.reverse_proxy.upstreams.docker_labels", []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	return module.(*Source)
}

func TestSource(t *testing.T) {
	e := dockertest.New(t)
	limited := web("a")
	limited.Labels = map[string]string{"app": "web", "rgate.max_requests": "7"}
	e.Run(limited)
	e.Run(web("b"))
	secure := web("c")
	secure.Labels = map[string]string{"app": "web", "rgate.scheme": "https"}
	e.Run(secure)

	s := loadSource(t, fmt.Sprintf(`{"match_labels":{"app":"web"},"endpoints":[{"host":%q}]}`, e.Host()))
	expect(t, s.subscription, "a", "b")
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.URL.Scheme = ""
	first, err := s.GetUpstreams(r)
	if err != nil || len(first) != 2 || first[0].Dial != "172.17.0.1:80" || first[0].MaxRequests != 7 || first[1].MaxRequests != 0 {
		t.Fatalf("upstreams are %v, %v", first, err)
	}
	if r.URL.Scheme != "" {
		t.Errorf("scheme is %q, want the transport to choose", r.URL.Scheme)
	}
	second, _ := s.GetUpstreams(r)
	if first[0] == second[0] {
		t.Error("upstreams are shared between requests, which the proxy writes into")
	}

	https := loadSource(t, fmt.Sprintf(`{"match_labels":{"app":"web"},"scheme":"https","endpoints":[{"host":%q}]}`, e.Host()))
	expect(t, https.subscription, "a", "b", "c")
	if _, err := https.GetUpstreams(r); err != nil || r.URL.Scheme != "https" {
		t.Errorf("scheme is %q, want https (%v)", r.URL.Scheme, err)
	}

	before := syncs(s.subscription)
	if err := s.ResetCache(r); err != nil {
		t.Error(err)
	}
	testkit.Eventually(t, "the hint led to a list", func() bool { return syncs(s.subscription) > before })
}

// Without containers, GetUpstreams must not return an error: the proxy would fall back
// to static upstreams.
func TestSourceWithoutDocker(t *testing.T) {
	s := loadSource(t, `{"match_labels":{"app":"web"},"endpoints":[{"host":"unix:///nowhere/docker.sock"}]}`)
	upstreams, err := s.GetUpstreams(httptest.NewRequest(http.MethodGet, "/", nil))
	if err != nil || upstreams == nil || len(upstreams) != 0 {
		t.Errorf("upstreams are %v, %v, want an empty slice", upstreams, err)
	}
}

func TestSourceRejectsBadConfigurations(t *testing.T) {
	for config, want := range map[string]string{
		`{}`: "match_labels is required",
		`{"match_labels":{"a":"b"},"scheme":"x"}`:                  `unknown scheme "x"`,
		`{"match_labels":{"a":"b"},"endpoints":[{"host":"x"}]}`:    `subscribing to the Docker containers: invalid docker host "x"`,
		`{"match_labels":{"a":"b"},"label":"x"}`:                   "unknown field",
		`{"match_labels":{"a":"{env.RGATE_TEST_NEVER_SET}"}}`:      "is empty: set the environment variable",
		`{"match_labels":{"a":"b"},"network":"x","hostport":true}`: "unknown field",
	} {
		_, err := newContext(t).LoadModuleByID("http.reverse_proxy.upstreams.docker_labels", []byte(config))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", config, err, want)
		}
	}
	if err := new(Source).Cleanup(); err != nil { // Caddy calls Cleanup after a failed Provision
		t.Error(err)
	}
}

// Requests through Caddy's reverse proxy while containers start and stop.
func TestReverseProxy(t *testing.T) {
	e := dockertest.New(t)
	serve := func(name string) (dockertest.Container, func()) {
		backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(name)) }))
		host, port, _ := net.SplitHostPort(backend.Listener.Addr().String())
		return dockertest.Container{Name: name, Labels: map[string]string{"app": "web", labelAddress: host, labelPort: port}}, backend.Close
	}
	a, stopA := serve("a")
	b, stopB := serve("b")
	defer stopB()
	idA := e.Run(a)
	module, err := newContext(t).LoadModuleByID("http.handlers.reverse_proxy", []byte(fmt.Sprintf(
		`{"dynamic_upstreams":{"source":"docker_labels","match_labels":{"app":"web"},"include":["local_addresses"],"endpoints":[{"host":%q}]},
		  "load_balancing":{"retries":5,"try_interval":1000000}}`, e.Host())))
	if err != nil {
		t.Fatal(err)
	}
	proxy := module.(*reverseproxy.Handler)
	get := func() string {
		r := httptest.NewRequest(http.MethodGet, "http://example.com/", nil)
		w := httptest.NewRecorder()
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, new(caddyhttp.Server))
		err := proxy.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
		if failure := (caddyhttp.HandlerError{}); errors.As(err, &failure) {
			return http.StatusText(failure.StatusCode)
		}
		return w.Body.String()
	}
	testkit.Eventually(t, "a responds", func() bool { return get() == "a" })
	idB := e.Run(b)
	testkit.Eventually(t, "b responds", func() bool { return get() == "b" })
	e.Kill(idA, 15)
	testkit.Eventually(t, "a is drained", func() bool { return len(proxy.DynamicUpstreams.(*Source).subscription.Set().Targets) == 1 })
	stopA()
	for range 20 {
		if got := get(); got != "b" {
			t.Fatalf("got %q, want b alone", got)
		}
	}
	e.Die(idA)
	e.Die(idB)
	testkit.Eventually(t, "none is left", func() bool { return get() == http.StatusText(http.StatusServiceUnavailable) })
}

func TestAdminAPI(t *testing.T) {
	e := dockertest.New(t)
	e.Run(web("a"))
	bad := web("bad")
	bad.Ports = nil
	e.Run(bad)
	s, _ := follow(t, Selector{Health: "any"}, e)
	expect(t, s, "a")
	routes := adminDocker{}.Routes()
	if len(routes) != 1 || routes[0].Pattern != "/rgate/docker" {
		t.Fatalf("routes are %+v", routes)
	}
	w := httptest.NewRecorder()
	if err := routes[0].Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/rgate/docker", nil)); err != nil {
		t.Fatal(err)
	}
	var status struct {
		Endpoints []struct {
			Endpoint   string
			Connected  bool
			APIVersion string    `json:"api_version"`
			LastSync   time.Time `json:"last_sync"`
			Containers int
			Selectors  []struct {
				MatchLabels map[string]string `json:"match_labels"`
				Health      string
				Targets     []struct{ Container, Address string }
				Rejected    []struct{ Container, Reason string }
			}
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &status); err != nil {
		t.Fatal(err)
	}
	if len(status.Endpoints) != 1 || len(status.Endpoints[0].Selectors) != 1 {
		t.Fatalf("response is %s", w.Body)
	}
	got := status.Endpoints[0]
	sel := got.Selectors[0]
	if got.Endpoint != e.Host() || !got.Connected || got.APIVersion != "1.51" || time.Since(got.LastSync) > time.Minute || got.Containers != 2 ||
		sel.MatchLabels["app"] != "web" || sel.Health != "any" ||
		len(sel.Targets) != 1 || sel.Targets[0].Address != "172.17.0.1:80" ||
		len(sel.Rejected) != 1 || sel.Rejected[0].Container != "bad" || !strings.Contains(sel.Rejected[0].Reason, "rgate.port") {
		t.Errorf("response is %s", w.Body)
	}
	err := routes[0].Handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/rgate/docker", nil))
	if failure := (caddy.APIError{}); !errors.As(err, &failure) || failure.HTTPStatus != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v, want method not allowed", err)
	}
}

func TestMetrics(t *testing.T) {
	ctx := newContext(t)
	for range 2 { // each source of a configuration registers them
		if err := RegisterMetrics(ctx); err != nil {
			t.Fatal(err)
		}
	}
	e := dockertest.New(t)
	e.Run(web("a"))
	bad := web("bad")
	bad.Ports = nil
	e.Run(bad)
	s, _ := follow(t, Selector{}, e)
	expect(t, s, "a")
	e.Run(web("b"))
	expect(t, s, "a", "b")
	e.CutStreams()
	testkit.Eventually(t, "the engine is back", func() bool { return syncs(s) == 2 })

	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector{})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if label := m.GetLabel()[0]; label.GetName() != "endpoint" || label.GetValue() != e.Host() {
				t.Errorf("%s has label %s", f.GetName(), label)
			}
			got[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"connected": 1, "containers": 3, "targets": 2, "rejected_containers": 1,
		"syncs_total": 2, "reconnects_total": 1,
	} {
		if value, ok := got["rgate_docker_"+name]; !ok || value != want {
			t.Errorf("%s is %v (%v), want %v", name, value, ok, want)
		}
	}
	if age, ok := got["rgate_docker_last_sync_age_seconds"]; !ok || age < 0 || age > 60 {
		t.Errorf("age is %v (%v)", age, ok)
	}
	if got["rgate_docker_events_total"] < 1 || got["rgate_docker_partial_syncs_total"] < 1 {
		t.Errorf("events and lists are not counted: %v", got)
	}
}
