package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

func TestA11NoProxyBeforeContainers(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	proxied := make(map[string]int)
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		proxied[r.URL.Path]++
		mu.Unlock()
		_, _ = io.WriteString(w, `{"keys":[]}`)
	})
	seen := func(path string) int {
		mu.Lock()
		defer mu.Unlock()
		return proxied[path]
	}
	here := bridgeAddress(t)
	backend := serveOn(t, here, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "direct") })
	startContainer(t, spec{})
	config := strings.NewReplacer("$DIAL", backend.Listener.Addr().String(), "$PROXY", proxy).Replace(`
routes:
  - {path_prefix: /container, backend: container}
  - {path_prefix: /dial, backend: dial}
  - {path_prefix: /limited, backend: dial, timeouts: {first_byte: 5s}}
  - {path_prefix: /own, backend: own}
  - {path_prefix: /jwt, backend: dial, jwt: {jwks_url: "http://jwks.invalid/keys", algorithms: [RS256]}}
backends:
  - {name: container, match_labels: {app_name: $APP}}
  - {name: dial, dial: ["$DIAL"]}
  - name: own
    dial: ["own.invalid:80"]
    proxy: {transport: {protocol: http, network_proxy: {from: url, url: "http://$PROXY"}}}
bandwidth: {store: "sqlite://$DIR/b.db", sources: [{name: kong, url: "http://source.invalid/metrics", interval: 1s}]}
`)
	env := []string{"HTTP_PROXY=http://" + proxy, "HTTPS_PROXY=http://" + proxy, "ALL_PROXY=http://" + proxy, "NO_PROXY="}
	g := startGateway(t, config, env...)
	g.await(t, "container", 1)
	wantStatus(t, "a container", g.get(t, "/container"), 200)
	for _, target := range []string{"/dial", "/limited"} {
		if got := g.get(t, target); got.body != "direct" {
			t.Errorf("%s: got %d %q, want the backend itself", target, got.status, got.body)
		}
	}
	wantStatus(t, "a backend with a proxy of its own", g.get(t, "/own"), 200)
	testkit.Eventually(t, "the keys are read through the proxy", func() bool { return seen("/keys") > 0 })
	testkit.Eventually(t, "the source is read through the proxy", func() bool { return seen("/metrics") > 0 })
	if seen("/own") != 1 || seen("/dial")+seen("/limited")+seen("/container") != 0 {
		t.Errorf("the proxy has seen %v", proxied)
	}
	if n := strings.Count(g.output.String(), "backends are dialed directly, although the environment sets a proxy"); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
	old := startGateway(t, "legacy: [environment_proxy]\nroutes: [{path_prefix: /, backend: dial}]\nbackends: [{name: dial, dial: [\""+
		backend.Listener.Addr().String()+"\"]}]\n", env...)
	if got := old.get(t, "/"); got.body == "direct" || seen("/") != 1 {
		t.Errorf("legacy environment_proxy: got %q, and the proxy has seen %v", got.body, proxied)
	}
}

func TestA10GatewayThatIsItsOwnBackendIs508(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var fields []string // X-Gateway-Hops of requests that reached a backend
	seen := func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		fields = append(fields, r.Header.Get("X-Gateway-Hops"))
	}
	var checked, relayed atomic.Int64
	auth := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Gateway-Hops") == "" {
			checked.Add(1)
		}
	})
	var beyond atomic.Pointer[url.URL] // URL of the second gateway
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		relayed.Add(1)
		r.SetURL(beyond.Load())
	}}
	g := launch(t, "Caddyfile", strings.NewReplacer("$ECHO", serve(t, seen), "$AUTH", auth, "$RELAY", serve(t, forward.ServeHTTP)).Replace(`{
	admin localhost:$ADMIN
}
:$PORT {
	rgate {
		route /loop self
		route /shared self {
			coalesce
			cache 1m
		}
		route /fallback down
		route /echo echo {
			forward_auth $AUTH {
				uri /verify
			}
		}
		route /around relay
		backend self {
			dial 127.0.0.1:$PORT
		}
		backend down {
			dial 127.0.0.1:1
			around {
				fallback self
			}
		}
		backend echo {
			dial $ECHO
		}
		backend relay {
			dial $RELAY
		}
	}
}
`), nil, "run", "--config", "$FILE")
	second := startGateway(t, fmt.Sprintf(`
max_hops: 2
routes: [{path_prefix: /, backend: first}, {path_prefix: /self, backend: self}]
backends: [{name: first, dial: ["%s"]}, {name: self, dial: ["127.0.0.1:$PORT"]}]
`, g.address()))
	target, err := url.Parse(second.url(""))
	must(t, "parsing a URL", err)
	beyond.Store(target)

	total := func(g *gateway) int {
		var stats struct {
			Count struct{ Success, Error int } `json:"requests_count"`
		}
		must(t, "reading statistics", json.Unmarshal([]byte(g.get(t, "/stats").body), &stats))
		return stats.Count.Success + stats.Count.Error
	}
	for _, path := range []string{"/loop", "/shared", "/fallback"} {
		for _, body := range []string{"", strings.Repeat("x", 100_000)} {
			method := "GET"
			if body != "" {
				method = "POST"
			}
			before := total(g)
			got := g.ask(t, method, path, body)
			wantStatus(t, method+" "+path, got, 508)
			if n := total(g) - before; n != 6 {
				t.Errorf("%s %s: one request became %d, want 6", method, path, n)
			}
			if got.header.Get("X-Gateway-Hops") != "" {
				t.Errorf("%s: the client is shown the field", path)
			}
		}
	}
	wantStatus(t, "by way of another gateway", g.get(t, "/around"), 508)
	if n := relayed.Load(); n < 2 || n > 5 { // the second gateway has max_hops 2
		t.Errorf("the relay has forwarded %d requests", n)
	}
	before := total(second)
	wantStatus(t, "max_hops 2", second.get(t, "/self"), 508)
	if n := total(second) - before; n != 3 {
		t.Errorf("max_hops 2: one request became %d, want 3", n)
	}

	// A chain of different gateways is not a loop, regardless of its length.
	chain := make([]string, 8)
	for i := range chain {
		chain[i] = fmt.Sprintf("%016x=1", i)
	}
	got := g.ask(t, "GET", "/echo", "", "X-Gateway-Hops", strings.Join(chain, ", ")+", nonsense, =, 1=1")
	wantStatus(t, "behind eight gateways", got, 200)
	wantStatus(t, "through two gateways", second.get(t, "/echo"), 200)
	mu.Lock()
	defer mu.Unlock()
	if len(fields) != 2 || strings.Count(fields[0], "=1") != 9 || strings.Contains(fields[0], "nonsense") || strings.Count(fields[1], "=1") != 2 {
		t.Errorf("backends have seen %q", fields)
	}
	if checked.Load() != 2 {
		t.Errorf("forward_auth was asked without the field %d times, want 2", checked.Load())
	}
}
