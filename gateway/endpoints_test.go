package gateway

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

// corner is an endpoint that responds with the path of the request.
type corner struct {
	policy.Base
	policy.ProtectedEndpoint
}

func (*corner) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.rgate_test_corner", New: func() caddy.Module { return new(corner) }}
}

func (*corner) DefaultPath() string { return "/corner" }

func (*corner) Check() error { return nil }

func (*corner) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	policy.WriteBody(w, r, http.StatusOK, "text/plain", []byte("corner of "+r.URL.Path))
	return nil
}

func init() { caddy.RegisterModule(new(corner)) }

func TestEndpointsTakePrecedenceOverRoutes(t *testing.T) {
	g := start(t, `{"handle": [{"handler": "rgate_test_corner", "path": "/corner"}],
		"routes": [{"path_prefix": "/corner", "backend": "web"}], "backends": [{"name": "web", "dial": ["127.0.0.1:1"], "retries": 0}]}`)
	url := serve(t, g, new(caddyhttp.Server))
	for path, want := range map[string]string{"/corner": "corner of /corner", "/corner/a": "corner of /corner/a", "/corners": ""} {
		got := get(t, "GET", url+path)
		if want != "" && (got.status != 200 || got.body != want) {
			t.Errorf("%s: got %d %q, want %q", path, got.status, got.body, want)
		}
		if want == "" && got.status != 503 {
			t.Errorf("%s: got %d, want the route's 503", path, got.status)
		}
	}
	if n := g.stats.Report(stats.Query{}).Requests; n.Success != 0 || n.Error != 1 {
		t.Errorf("the statistics have %+v, want the route's request alone", n)
	}
}

func TestDisabledEndpoint(t *testing.T) {
	g := start(t, `{"handle": [{"handler": "rgate_test_corner", "path": "/corner", "disabled": true}]}`)
	if got := get(t, "GET", serve(t, g, new(caddyhttp.Server))+"/corner"); got.status != 404 {
		t.Errorf("got %d, want 404", got.status)
	}
}

func TestDuplicateAndMisplacedEndpoints(t *testing.T) {
	const one = `{"handler": "rgate_test_corner", "path": "/corner"}`
	const rest = `"backends": [{"name": "web", "dial": ["127.0.0.1:1"]}]}`
	for config, want := range map[string]string{
		`{"handle": [` + one + `, ` + one + `], ` + rest:                                                                                        "handle[1]: duplicate test_corner: remove one of the two",
		`{"routes": [{"path_prefix": "/", "backend": "web", "handle": [` + one + `]}], ` + rest:                                                 "routes[0].handle[0]: test_corner applies to the whole gateway",
		`{"groups": [{"handle": [` + one + `], "routes": [{"path_prefix": "/", "backend": "web"}]}], ` + rest:                                   "groups[0].handle[0]: test_corner applies to",
		`{"routes": [{"path_prefix": "/", "backend": "web"}], "backends": [{"name": "web", "dial": ["127.0.0.1:1"], "around": [` + one + `]}]}`: "backends[0].around[0]: test_corner applies to",
	} {
		g := new(Gateway)
		if err := caddy.StrictUnmarshalJSON([]byte(config), g); err != nil {
			t.Fatal(err)
		}
		var problem *Problem
		if err := g.Check(); !errors.As(err, &problem) || !strings.HasPrefix(problem.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %s", config, problem, want)
		}
	}
}

func TestOverlappingEndpointPaths(t *testing.T) {
	for _, tc := range []struct{ config, path, other string }{
		{`{}`, "", ""},
		{`{"operations": {}}`, "", ""},
		{`{"stats": {"path": "/gateways"}, "operations": {}}`, "", ""},
		{`{"stats": {"path": "/"}, "operations": {}}`, "", ""},
		{`{"stats": {"path": "/gateway/health", "disabled": true}, "operations": {}}`, "", ""},
		{`{"stats": {"path": "/gateway/health"}, "operations": {}}`, "stats.path", ""},
		{`{"stats": {"path": "/gateway/health"}, "operations": {"path": "/gateway"}}`, "operations.path", "stats.path"},
		{`{"stats": {"path": "/ops"}, "operations": {"path": "/ops"}}`, "operations.path", "stats.path"},
		{`{"operations": {"path": "/stats/ops"}}`, "operations.path", ""},
		{`{"operations": {}, "handle": [{"handler": "rgate_test_corner", "path": "/gateway/corner"}]}`, "handle[0].path", ""},
		{`{"operations": {"path": "/a/b"}, "handle": [{"handler": "headers"}, {"handler": "rgate_test_corner", "path": "/a"}]}`, "handle[1].path", "operations.path"},
		{`{"operations": {"path": "/a/b"}, "handle": [{"handler": "rgate_test_corner", "path": "/a", "disabled": true}]}`, "", ""},
		{`{"operations": {"path": "/corner/a"}, "handle": [{"handler": "rgate_test_corner"}]}`, "operations.path", ""},
	} {
		g := new(Gateway)
		if err := caddy.StrictUnmarshalJSON([]byte(tc.config), g); err != nil {
			t.Fatal(err)
		}
		problem := new(Problem)
		if err := g.Check(); (err != nil) != (tc.path != "") || err != nil && !errors.As(err, &problem) || problem.Path != tc.path || problem.Other != tc.other {
			t.Errorf("%s: got %+v", tc.config, problem)
		}
	}
}
