package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Options may name header fields with underscores or dots. The server drops such fields
// unless they are listed as expected.
func TestD6OptionsMayNameFieldsWithUnderscoresAndDots(t *testing.T) {
	t.Parallel()
	config := fmt.Sprintf(`
routes:
  - {path_prefix: /key, backend: web, api_key: {header: app_key, keys: [{name: alice, sha256: %q}]}}
  - {path_prefix: /limit, backend: web, rate_limit: {requests: 1, window: 1h, key: "{http.request.header.client.id}"}}
  - {path_prefix: /if, headers: {app_version: ["2"]}, backend: web}
  - {path_prefix: /rename, backend: web, transform: {request: {headers: {rename: {tenant_id: X-Tenant}, delete: [left_alone]}}}}
backends: [{name: web, dial: [%q]}]
`, hashOfKey("secret"), startSeeing(t))
	g := startGateway(t, config)
	check := func(want int, target string, headers ...string) seen {
		t.Helper()
		got := g.askBy(t, g.client, target, headers...)
		if got.status != want {
			t.Errorf("%s with %q: got status %d, want %d", target, headers, got.status, want)
		}
		if got.status != http.StatusOK {
			return seen{}
		}
		return seenIn(t, target, got)
	}
	check(200, "/key", "app_key", "secret")
	check(401, "/key", "app_key", "wrong")
	check(401, "/key", "App-Key", "secret")
	check(200, "/limit", "client.id", "a")
	check(429, "/limit", "client.id", "a")
	check(200, "/limit", "client.id", "b")
	check(200, "/if", "app_version", "2")
	check(404, "/if", "app-version", "2")
	if s := check(200, "/rename", "tenant_id", "7", "Left-Alone", "1"); s.Header.Get("X-Tenant") != "7" || s.Header.Get("Left-Alone") != "1" {
		t.Errorf("the backend got %v, want X-Tenant: 7 and Left-Alone: 1", s.Header)
	}
	for name := range check(200, "/if", "app_version", "2", "X_User_ID", "root", "X.Forwarded.For", "10.0.0.1", "X_Real.IP", "10.0.0.1", "other_field", "1", "other.field", "1").Header {
		if strings.ContainsAny(name, "_.") && name != "App_version" {
			t.Errorf("%s reached the backend", name)
		}
	}

	// The equivalent Caddyfile lists the expected header fields. A Caddyfile without the
	// list is rejected.
	printed := rgate(t, nil, "caddyfile", "-c", g.file).stdout
	if !strings.Contains(printed, "expected_underscore_headers App_key App_version Tenant_id") || !strings.Contains(printed, "expected_dot_headers Client.id") {
		t.Errorf("the Caddyfile does not say which fields are expected:\n%s", printed)
	}
	for _, test := range []struct{ site, want string }{
		{"rgate_rate_limit 1 1h {\n key {header.client_id}\n}\n respond ok", "add `expected_underscore_headers client_id` to the global option `servers`"},
		{"rgate_api_key {\n header app.key\n keys {\n name alice\n sha256 " + hashOfKey("secret") + "\n}\n}\n respond ok", "add `expected_dot_headers app.key` to the global option `servers`"},
		{"rgate {\n backend web {\n dial 127.0.0.1:9\n}\n route / web {\n headers app_version 2\n}\n}", "add `expected_underscore_headers App_version`"},
		{"rgate_rate_limit 1 1h {\n key {header.X_User_ID}\n}\n respond ok", "CGI and PHP read it as X-User-Id: use another name"},
		{"reverse_proxy 127.0.0.1:9 {\n lb_policy ring_hash {header.client_id}\n}", "add `expected_underscore_headers client_id`"},
	} {
		file := filepath.Join(t.TempDir(), "Caddyfile")
		must(t, "writing the Caddyfile", os.WriteFile(file, []byte("{\n admin off\n}\n:"+fmt.Sprint(freePort(t))+" {\n"+test.site+"\n}\n"), 0o600))
		if got := rgate(t, nil, "validate", "--config", file, "--adapter", "caddyfile"); got.code == 0 || !strings.Contains(got.stdout+got.stderr, test.want) {
			t.Errorf("%s: exit code %d and\n%s\nwant %q", test.site, got.code, got.stdout+got.stderr, test.want)
		}
	}
}
