package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

const testSecret = "0123456789012345678901234567890123456789"

// bearer is the header of a request with a token of testSecret, with some claims changed.
func bearer(t *testing.T, changes map[string]any) []string {
	return []string{"Authorization", "Bearer " + signed(t, jwt.SigningMethodHS256, []byte(testSecret), "", claimsOf(changes))}
}

// logged returns the lines of the log that have a text in them.
func (g *gateway) logged(text string) (lines []string) {
	for line := range strings.Lines(g.output.String()) {
		if strings.Contains(line, text) {
			lines = append(lines, line)
		}
	}
	return lines
}

// A role was split at its spaces, so that "Read Only Admin" was an Admin.
func TestD2TheTextOfARoleIsOneRole(t *testing.T) {
	t.Parallel()
	echo := startEcho(t)
	options := `algorithms: [HS256], secret: "` + testSecret + `"`
	g := startGateway(t, `
jwt: {`+options+`}
routes:
  - {path_prefix: /text, backend: b, require: {roles: [Admin]}}
  - {path_prefix: /whole, backend: b, require: {roles: [Read Only Admin]}}
  - {path_prefix: /split, backend: b, require: {roles: [Admin]}, jwt: {`+options+`, roles: {split: " "}}}
  - {path_prefix: /comma, backend: b, require: {roles: [Admin]}, jwt: {`+options+`, roles: {claim: realm.groups, split: ","}}}
  - {path_prefix: /one, backend: b, require: {roles: [Admin]}, jwt: {`+options+`, roles_claim: group, roles: {split: ""}}}
  - {path_prefix: /scope, backend: b, require: {scopes: [pay]}}
  - path_prefix: /provider
    backend: b
    jwt: false
    require: {roles: [Admin]}
    handle: [{handler: authentication, providers: {rgate_jwt: {`+options+`}}}]
  - path_prefix: /told
    backend: b
    transform: {response: {headers: {set: {X-Roles: "{http.auth.user.roles}"}}}}
backends: [{name: b, dial: ["`+echo+`"]}]`)
	for _, tc := range []struct {
		path   string
		claims map[string]any
		want   int
	}{
		{"/text", map[string]any{"roles": "Read Only Admin"}, 403},
		{"/text", map[string]any{"roles": []string{"Read Only Admin"}}, 403},
		{"/text", map[string]any{"roles": "Admin"}, 200},
		{"/text", map[string]any{"roles": []string{"x", "Admin"}}, 200},
		{"/whole", map[string]any{"roles": "Read Only Admin"}, 200},
		{"/split", map[string]any{"roles": "Reader Admin"}, 200},
		{"/comma", map[string]any{"realm": map[string]any{"groups": "Reader , Admin"}}, 200},
		{"/comma", map[string]any{"realm": map[string]any{"groups": "Read Only Admin"}}, 403},
		{"/one", map[string]any{"group": "Read Only Admin"}, 403},
		{"/one", map[string]any{"group": "Admin"}, 200},
		{"/scope", map[string]any{"scope": "read pay"}, 200},
		{"/scope", map[string]any{"scope": nil, "scp": "read pay"}, 200},
		{"/provider", map[string]any{"roles": "Read Only Admin"}, 403},
		{"/provider", map[string]any{"roles": "Admin"}, 200},
	} {
		if got := g.ask(t, "GET", tc.path, "", bearer(t, tc.claims)...); got.status != tc.want {
			t.Errorf("%s with %v: status %d, want %d", tc.path, tc.claims, got.status, tc.want)
		}
	}
	got := g.ask(t, "GET", "/told", "", bearer(t, map[string]any{"roles": []string{"Read Only Admin", "Reader"}})...)
	if roles := got.header.Get("X-Roles"); roles != "Reader" {
		t.Errorf("the placeholder of roles is %q: with the others it would be read as Admin", roles)
	}
	const warning = "is not split at spaces any more"
	if lines := g.logged(warning); len(lines) != 1 || !strings.Contains(lines[0], `"/text"`) || !strings.Contains(lines[0], `"/provider"`) ||
		strings.Contains(lines[0], `"/split"`) || strings.Contains(lines[0], `"/one"`) {
		t.Errorf("the warnings at the start are %q", lines)
	}

	site := launch(t, "Caddyfile", fmt.Sprintf("{\n\tadmin localhost:$ADMIN\n}\n:$PORT {\n\trgate_jwt {\n\t\talgorithms HS256\n\t\tsecret %s\n\t}\n\trgate_require {\n\t\troles Admin\n\t}\n\trespond ok\n}\n", testSecret),
		nil, "run", "--config", "$FILE")
	if got := site.ask(t, "GET", "/", "", bearer(t, map[string]any{"roles": "Read Only Admin"})...); got.status != 403 {
		t.Errorf("in a site: status %d, want 403", got.status)
	}
	if lines := site.logged(warning); len(lines) != 1 {
		t.Errorf("the warnings of a site are %q", lines)
	}
}
