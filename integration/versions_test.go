package integration

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

// versions routes to two API versions in separate containers by path, header, query and
// weight.
const versions = `
groups:
  - path_prefix: /api/v1
    deprecated: {since: 2026-03-01, sunset: 2026-12-31, link: "https://example.com/v2"}
    handle: [{handler: headers, request: {set: {X-Group: [one]}}}]
    routes: [{path_prefix: /users, backend: v1}]
  - path_prefix: /api/v2
    handle: [{handler: headers, request: {set: {X-Group: [two]}}}]
    routes:
      - path_prefix: "/users/:id"
        backend: v2
        handle: [{handler: headers, request: {set: {X-User: ["{http.rgate.param.id}"]}}}]
      - {path_prefix: "/files/*", strip_prefix: true, backend: v2}
  - headers: {Accept: "*application/vnd.shop.v2+json*"}
    routes: [{path_prefix: /users, backend: v2}]
  - headers: {X-API-Version: 2}
    routes: [{path_prefix: /users, backend: v2}]
  - query: {version: 2}
    routes: [{path_prefix: /users, backend: v2}]
routes:
  - {path_prefix: /users, backend: v1}
  - path_prefix: /canary
    backends: [{name: v1, weight: 95}, {name: v2, weight: 5}]
  - path_prefix: "/sticky/:id"
    backends: [{name: v1, weight: $V1}, {name: v2, weight: $V2}]
    sticky_key: "{http.rgate.param.id}"
backends:
  - {name: v1, match_labels: {app_name: $APP, version: "1"}}
  - {name: v2, match_labels: {app_name: $APP, version: "2"}}
`

func versionsWith(v1, v2 int) string {
	return "listen: :$PORT\nadmin: localhost:$ADMIN\n" +
		strings.NewReplacer("$V1", fmt.Sprint(v1), "$V2", fmt.Sprint(v2)).Replace(versions)
}

func startVersions(t *testing.T) *gateway {
	for _, version := range []string{"1", "2"} {
		startContainer(t, spec{labels: map[string]string{"version": version}, env: []string{"SERVICE=v" + version}})
	}
	g := startGateway(t, versionsWith(1, 1))
	g.await(t, "v1", 1)
	g.await(t, "v2", 1)
	return g
}

func TestVersions(t *testing.T) {
	t.Parallel()
	g := startVersions(t)
	for _, tc := range []struct {
		target  string
		headers []string
		service string
	}{
		{"/users", nil, "v1"},
		{"/api/v1/users/7", nil, "v1"},
		{"/api/v2/users/7", nil, "v2"},
		{"/users/7", []string{"Accept", "application/vnd.shop.v2+json, */*"}, "v2"},
		{"/users", []string{"X-API-Version", "2"}, "v2"},
		{"/users", []string{"X-API-Version", "3"}, "v1"},
		{"/users?version=2", nil, "v2"},
	} {
		got := g.ask(t, http.MethodGet, tc.target, "", tc.headers...)
		echo := got.echo(t)
		if echo.Service != tc.service || echo.RequestURI != tc.target {
			t.Errorf("%s with %q reached %s as %s, want %s", tc.target, tc.headers, echo.Service, echo.RequestURI, tc.service)
		}
		deprecated := got.header.Get("Deprecation") + " " + got.header.Get("Sunset") + " " + got.header.Get("Link")
		want := "  "
		if strings.HasPrefix(tc.target, "/api/v1") {
			want = `@1772323200 Thu, 31 Dec 2026 00:00:00 GMT <https://example.com/v2>; rel="deprecation"; type="text/html"`
		}
		if deprecated != want {
			t.Errorf("%s: the response says %q about its deprecation, want %q", tc.target, deprecated, want)
		}
	}
	if got := g.get(t, "/api/v2/users/caf%C3%A9").echo(t).Headers; got.Get("X-Group") != "two" || got.Get("X-User") != "café" {
		t.Errorf("the backend saw the group %q and the user %q", got.Get("X-Group"), got.Get("X-User"))
	}
	if got := g.get(t, "/api/v2/files/a/b%2Fc?d").echo(t).RequestURI; got != "/a/b%2Fc?d" {
		t.Errorf("stripped, the path reached the backend as %s", got)
	}
	for _, target := range []string{
		"/api/v2/files/../users/7", "/api/v2/files/%2e%2e/users/7", "/api/v2/files/..%2fusers/7", "/api/v2/files/..;/users/7",
		`/api/v2/files/..\users\7`, "/users/../canary", "/users/..//canary", "/users/%252e%252e/canary",
	} {
		if got := g.rawGet(t, target); got.status != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400: it may be read as a path of another route", target, got.status)
		}
	}
}

func TestSharesOfTheTraffic(t *testing.T) {
	t.Parallel()
	g := startVersions(t)
	const n, p = 1000, 0.05
	canary := 0
	for range n {
		if g.get(t, "/canary").echo(t).Service == "v2" {
			canary++
		}
	}
	// Six standard deviations: fails about twice in 10⁹ runs.
	if slack := 6 * math.Sqrt(n*p*(1-p)); math.Abs(float64(canary)-n*p) > slack {
		t.Errorf("v2 got %d of %d requests, want %.0f give or take %.0f", canary, n, n*p, slack)
	}

	const keys = 60
	reached := func() (services [keys]string) {
		for key := range keys {
			services[key] = g.get(t, fmt.Sprint("/sticky/", key)).echo(t).Service
		}
		return services
	}
	before := reached()
	if again := reached(); again != before {
		t.Errorf("keys went to %v, then to %v", before, again)
	}
	g.write(t, versionsWith(1, 9))
	if done := rgate(t, nil, "reload", "-c", g.file); done.code != 0 {
		t.Fatalf("reloading: exit code %d, %s", done.code, done.stderr)
	}
	var after [keys]string
	testkit.Eventually(t, "keys have moved", func() bool { after = reached(); return after != before })
	for key := range keys {
		if before[key] == "v2" && after[key] != "v2" {
			t.Errorf("key %d went back to %s, although the share of v2 grew", key, after[key])
		}
	}
}
