package balance

import (
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/rgate/rgate/dockerupstreams/dockertest"
	_ "github.com/rgate/rgate/gateway"
	"github.com/rgate/rgate/internal/testkit"
)

// runContainer adds a container to a fake engine. A real server at dial is its backend.
func runContainer(t testing.TB, e *dockertest.Engine, name, dial string, labels ...string) (id string) {
	t.Helper()
	host, port, err := net.SplitHostPort(dial)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"app": "web", "rgate.address": host, "rgate.port": port}
	for i := 0; i+1 < len(labels); i += 2 {
		all[labels[i]] = labels[i+1]
	}
	return e.Run(dockertest.Container{Name: name, Labels: all})
}

// naming starts a backend that responds with a name.
func naming(t testing.TB, name string) (dial string) {
	dial, _ = testkit.Backend(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })
	return dial
}

// gatewayWith starts a gateway whose only backend is the containers labeled app=web.
func gatewayWith(t testing.TB, e *dockertest.Engine, policy string) (url string) {
	t.Helper()
	return serve(t, handler(t, "http.handlers.rgate", fmt.Sprintf(
		`{"name": %q, "docker": [{"host": %q}], "routes": [{"path_prefix": "/", "backend": "web"}],
		"backends": [{"name": "web", "match_labels": {"app": "web"}, "include": ["local_addresses"], "lb_policy": %s}]}`, t.Name(), e.Host(), policy)))
}

// TestKeysFollowContainerNames checks that a recreated container keeps its keys at a new
// address, in a gateway and in other proxies.
func TestKeysFollowContainerNames(t *testing.T) {
	for name, make := range map[string]func(testing.TB, *dockertest.Engine) string{
		"gateway": func(t testing.TB, e *dockertest.Engine) string {
			return gatewayWith(t, e, `{"policy": "ring_hash", "key": "{http.request.header.X-User}"}`)
		},
		"reverse_proxy": func(t testing.TB, e *dockertest.Engine) string {
			return serve(t, handler(t, "http.handlers.reverse_proxy", fmt.Sprintf(
				`{"dynamic_upstreams": {"source": "docker_labels", "match_labels": {"app": "web"}, "include": ["local_addresses"], "endpoints": [{"host": %q}]},
				"load_balancing": {"selection_policy": {"policy": "ring_hash", "key": "{http.request.header.X-User}"}}}`, e.Host())))
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := dockertest.New(t)
			ids := map[string]string{}
			for _, name := range []string{"web-1", "web-2", "web-3"} {
				ids[name] = runContainer(t, e, name, naming(t, name))
			}
			url := make(t, e)
			ask := func(i int) string {
				_, name := get(t, url, "X-User", fmt.Sprint(i))
				return name
			}
			testkit.Eventually(t, "all containers are there", func() bool {
				seen := map[string]bool{}
				for i := range 30 {
					seen[ask(i)] = true
				}
				return seen["web-1"] && seen["web-2"] && seen["web-3"]
			})
			var before []string
			for i := range 60 {
				before = append(before, ask(i))
			}
			e.Die(ids["web-2"])
			e.Remove(ids["web-2"])
			runContainer(t, e, "web-2", naming(t, "web-2"))
			testkit.Eventually(t, "the new container has the keys of the old one", func() bool {
				for i, name := range before {
					if ask(i) != name {
						return false
					}
				}
				return true
			})
		})
	}
}

// TestLeastLatencyInAGateway checks that retries and status codes of the gateway still
// work when the policy wraps its transport.
func TestLeastLatencyInAGateway(t *testing.T) {
	closed, _ := net.Listen("tcp", "127.0.0.1:0")
	refusing := closed.Addr().String()
	closed.Close()
	e := dockertest.New(t)
	working := naming(t, "works")
	runContainer(t, e, "web-1", working)
	runContainer(t, e, "web-2", refusing)
	known, err := acquireTable()
	if err != nil {
		t.Fatal(err)
	}
	defer releaseTable()
	url := gatewayWith(t, e, `{"policy": "least_latency"}`)
	testkit.Eventually(t, "the failure is known", func() bool {
		get(t, url)
		h := known.find(refusing)
		return h != nil && h.failures.Load() > 0
	})
	for range 20 {
		if status, body := get(t, url); status != http.StatusOK || body != "works" {
			t.Fatalf("got %d %q", status, body)
		}
	}
	if h := known.find(working); h == nil || h.estimate.Load() == 0 {
		t.Error("the latency of the other is not known")
	}
}
