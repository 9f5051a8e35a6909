package gateway

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"

	"github.com/rgate/rgate/internal/testkit"
)

// adding returns a handler that adds a value to the request's X-Set field.
func adding(value string) string {
	return fmt.Sprintf(`{"handler": "headers", "request": {"add": {"X-Set": [%q]}}}`, value)
}

func TestHandlersRunFromOuterToInner(t *testing.T) {
	address, _ := testkit.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, strings.Join(r.Header.Values("X-Set"), " "))
	})
	g := start(t, fmt.Sprintf(`{
		"handle": [%[2]s],
		"routes": [{"path_prefix": "/", "backend": "b", "handle": [%[3]s]}],
		"groups": [{"path_prefix": "/outer", "handle": [%[4]s, %[5]s],
			"routes": [{"path_prefix": "/x", "backend": "b"}, {"path_prefix": "/own", "backend": "b", "handle": [%[3]s]}],
			"groups": [{"path_prefix": "/inner", "handle": [%[6]s], "routes": [{"path_prefix": "/x", "backend": "b", "handle": [%[3]s]}]}]}],
		"backends": [{"name": "b", "dial": [%[1]s], "around": [%[7]s]}]
	}`, quoted(address), adding("gateway"), adding("route"), adding("outer"), adding("outer too"), adding("inner"), adding("around")))
	url := serve(t, g, &caddyhttp.Server{})
	for path, want := range map[string]string{
		"/":              "gateway route around",
		"/outer/x":       "gateway outer outer too around",
		"/outer/own":     "gateway outer outer too route around",
		"/outer/inner/x": "gateway outer outer too inner route around",
		"/outer/inner":   "gateway route around", // the group has no matching route
	} {
		if got := get(t, "GET", url+path).body; got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestGroupsAreInherited(t *testing.T) {
	none := []*Backend(nil)
	g := &Gateway{Backends: none, Groups: []*Group{{
		PathPrefix: "/v1/",
		Hosts:      []string{"outer.example"},
		Headers:    caddyhttp.MatchHeader{"x-api-version": {"1"}, "X-Outer": {"*"}},
		Query:      caddyhttp.MatchQuery{"version": {"1"}, "outer": {"*"}},
		Deprecated: &Deprecation{Sunset: "2026-12-31"},
		Routes: []*Route{
			{PathPrefix: "/own", Hosts: []string{"own.example"}, Headers: caddyhttp.MatchHeader{"X-API-Version": {"2"}},
				Query: caddyhttp.MatchQuery{"version": {"2"}}, Deprecated: &Deprecation{Sunset: "2027-12-31"}},
			{},
		},
		Groups: []*Group{{
			PathPrefix: "/:tenant",
			Hosts:      []string{"inner.example"},
			Headers:    caddyhttp.MatchHeader{"X-Outer": nil},
			Routes:     []*Route{{PathPrefix: "/users"}},
		}},
	}, {PathPrefix: "/", Routes: []*Route{{}, {PathPrefix: "/x"}}}}}
	var got []string
	for _, rt := range g.resolvedRoutes() {
		sunset := ""
		if rt.Deprecated != nil {
			sunset = rt.Deprecated.Sunset
		}
		got = append(got, fmt.Sprint(rt.at, " ", rt.label(), " ", sunset))
	}
	want := []string{
		"groups[0].routes[0] own.example/v1/own?outer=*&version=2 X-Api-Version=2 X-Outer=* 2027-12-31",
		"groups[0].routes[1] outer.example/v1/?outer=*&version=1 X-Api-Version=1 X-Outer=* 2026-12-31",
		"groups[0].groups[0].routes[0] inner.example/v1/:tenant/users?outer=*&version=1 X-Api-Version=1 !X-Outer 2026-12-31",
		"groups[1].routes[0] / ",
		"groups[1].routes[1] /x ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if names := g.Groups[0].Headers; names["x-api-version"] == nil {
		t.Errorf("the configuration was changed: %v", names)
	}
}

func TestPathsOfGroups(t *testing.T) {
	g := &Gateway{Groups: []*Group{{}, {Groups: []*Group{{Routes: []*Route{{PathPrefix: "/"}}}}}}}
	rt := g.resolvedRoutes()[0]
	for i, want := range []string{"groups[1]", "groups[1].groups[0]"} {
		if got := rt.groupPath(i); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Each common form of versioning selects the version's backend.
func TestVersions(t *testing.T) {
	routes := func(version string) string {
		return fmt.Sprintf(`"routes": [{"name": %q, "path_prefix": "/users", "backend": "b"}]`, version)
	}
	address, _ := testkit.Backend(t, nil)
	g := start(t, fmt.Sprintf(`{
		"handle": [{"handler": "headers", "response": {"set": {"X-Route": ["{http.rgate.route}"]}}}],
		"groups": [
			{"path_prefix": "/v1", %s},
			{"headers": {"Accept": ["*application/vnd.x.v2+json*"]}, %s},
			{"headers": {"X-API-Version": ["3", "3.1"]}, %s},
			{"query": {"version": ["4"]}, %s},
			{"hosts": ["v5.example.com"], %s},
			{"headers": {"X-API-Version": ["3"], "X-Beta": ["*"]}, %s},
			{"headers": {"X-API-Version": ["7"], "X-Beta": null}, %s},
			%s
		],
		"backends": [{"name": "b", "dial": [%s]}]
	}`, routes("one"), routes("two"), routes("three"), routes("four"), routes("five"), routes("beta"), routes("no beta"),
		"{"+routes("default")+"}", quoted(address)))
	url := serve(t, g, &caddyhttp.Server{})
	for _, test := range []struct {
		path   string
		header []string
		want   string
	}{
		{"/users", nil, "default"},
		{"/v1/users", nil, "one"},
		{"/users", []string{"Accept", "application/vnd.x.v2+json"}, "two"},
		{"/users", []string{"Accept", "text/html, application/vnd.x.v2+json;q=0.9"}, "two"},
		{"/users", []string{"Accept", "application/vnd.x.v20+json"}, "default"},
		{"/users/7", []string{"X-API-Version", "3"}, "three"},
		{"/users", []string{"x-api-version", "3.1"}, "three"},
		{"/users", []string{"X-API-Version", "3.10"}, "default"},
		{"/users?version=4", nil, "four"},
		{"/users?a=b&version=4", nil, "four"},
		{"/users?version=44", nil, "default"},
		{"/users?version=4", []string{"X-API-Version", "3"}, "three"},
		{"/users", []string{"X-API-Version", "3", "X-Beta", ""}, "beta"},
		{"/users", []string{"X-API-Version", "7"}, "no beta"},
		{"/users", []string{"X-API-Version", "7", "X-Beta", "1"}, "default"},
	} {
		got := get(t, "GET", url+test.path, test.header...)
		if route := got.header.Get("X-Route"); route != test.want {
			t.Errorf("%s %q: got %q, want %q", test.path, test.header, route, test.want)
		}
	}
	r, _ := http.NewRequest("GET", url+"/users", nil)
	r.Host = "v5.example.com"
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if route := response.Header.Get("X-Route"); route != "five" {
		t.Errorf("of its host: got %q, want five", route)
	}
}

func TestParameters(t *testing.T) {
	address, _ := testkit.Backend(t, nil)
	const setParams = `"handle": [{"handler": "headers", "response": {"set": {
		"X-Params": ["{http.rgate.param.id} {http.rgate.param.order} {http.rgate.param.*}"]}}}]`
	g := start(t, fmt.Sprintf(`{
		"handle": [{"handler": "headers", "response": {"set": {"X-All": ["{http.rgate.param.id}|{http.rgate.param.*}"]}}}],
		"groups": [{"path_prefix": "/users/:id", "routes": [
			{"path_prefix": "/orders/:order/*", "backend": "b", "strip_prefix": true, %s},
			{"path_prefix": "/files/*", "backend": "b"},
			{"path_prefix": "", "backend": "b"},
			{"path_prefix": "/rewritten/*", "backend": "b", "strip_prefix": true, "handle": [{"handler": "rewrite", "uri": "/"}]},
			{"path_prefix": "/kept/*", "backend": "b", "strip_prefix": true, "handle": [{"handler": "rewrite", "uri": "{http.request.uri}?more=1"}]}
		]}],
		"routes": [{"path_prefix": "/*/any", "backend": "b"}, {"path_prefix": "/plain", "backend": "b"},
			{"path_prefix": "/literal/:id", "match": "prefix", "backend": "b"}],
		"backends": [{"name": "b", "dial": [%s]}]
	}`, setParams, quoted(address)))
	url := serve(t, g, &caddyhttp.Server{})
	for _, test := range []struct{ path, body, params, all string }{
		{"/users/7", "/users/7", "", "7|"},
		{"/users/caf%C3%A9", "/users/caf%C3%A9", "", "café|"},
		{"/users/7/orders/8/", "/", "7 8", "7|"},
		{"/users/7/orders/8/a/b%2Fc?d=/", "/a/b%2Fc?d=/", "7 8 a/b/c", "7|a/b/c"},
		{"/users/%37/orders/%2E8/a", "/a", "7 .8 a", "7|a"},
		{"/users/7/files/", "/users/7/files/", "", "7|"},
		{"/users/7/files/a/b", "/users/7/files/a/b", "", "7|a/b"},
		{"/users/7/rewritten/a", "/", "", "7|a"},    // there is no prefix left to strip
		{"/users/7/kept/a", "/a?more=1", "", "7|a"}, // the rewrite keeps the prefix, which is stripped
		{"/seven/any", "/seven/any", "", "|"},       // a * in the middle has no name
		{"/plain", "/plain", "", "|"},               // a prefix has no parameters
		{"/literal/:id/x", "/literal/:id/x", "", "|"},
	} {
		got := get(t, "GET", url+test.path)
		if got.body != "GET "+test.body || got.header.Get("X-Params") != test.params && test.params != "" || got.header.Get("X-All") != test.all {
			t.Errorf("%s: got %d %q with %q and %q; want %q with %q and %q", test.path, got.status, got.body,
				got.header.Get("X-Params"), got.header.Get("X-All"), test.body, test.params, test.all)
		}
	}
	for _, path := range []string{"/users", "/users/", "/users/7/", "/users/7/orders/8", "/users/7/orders", "/x/y/any", "/literal/7"} {
		if got := get(t, "GET", url+path); got.status != 404 {
			t.Errorf("%s: got %d %q, want 404", path, got.status, got.body)
		}
	}
}

func TestErrorsNameBothLocations(t *testing.T) {
	g := new(Gateway)
	err := caddy.StrictUnmarshalJSON([]byte(`{
		"groups": [{"path_prefix": "/u", "routes": [{"path_prefix": "/:id", "backend": "b"}]}],
		"routes": [{"path_prefix": "/u/:name", "backends": [{"name": "b", "weight": 1}, {"name": "c", "weight": 1}]}],
		"backends": [{"name": "b", "dial": ["127.0.0.1:1"]}, {"name": "c", "dial": ["127.0.0.1:1"]}]
	}`), g)
	if err != nil {
		t.Fatal(err)
	}
	want := `groups[0].routes[0].path_prefix: /u/:id matches the same paths as /u/:name, which is already routed to "b" and "c": ` +
		`remove one of the two routes, or distinguish them by match, hosts, headers, query or methods (the other is routes[0].path_prefix)`
	if err := g.Check(); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
