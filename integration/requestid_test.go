package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/rgate/rgate/internal/testkit"
)

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	g := startGateway(t, fmt.Sprintf(`
access_log: true
request_id:
routes:
  - {path_prefix: /, backend: nosy}
  - {path_prefix: /trusting, backend: nosy, request_id: {trust: true}}
  - {path_prefix: /off, backend: nosy, request_id: false}
  - {path_prefix: /gone, backend: gone}
  - path_prefix: /locked
    backend: nosy
    handle: [{handler: authentication, providers: {http_basic: {accounts: [{username: alice, password: %q}]}}}]
backends: [{name: nosy, dial: [%q]}, {name: gone, dial: ["127.0.0.1:%d"]}]
`, passwordHash(t, "secret"), nosyBackend(t), freePort(t)))
	const mine, parent = "mine.1", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, tc := range []struct {
		what, target, sent string
		status             int
		kept               bool
	}{
		{"of the gateway", "/", "", 200, false},
		{"not a client's", "/", mine, 200, false},
		{"of a trusted client", "/trusting", mine, 200, true},
		{"not a wrong one", "/trusting", "a b", 200, false},
		{"of a 503", "/gone", "", http.StatusServiceUnavailable, false},
		{"of a 401", "/locked", "", http.StatusUnauthorized, false},
	} {
		headers := []string{"traceparent", parent}
		if tc.sent != "" {
			headers = append(headers, "X-Request-ID", tc.sent)
		}
		got := g.ask(t, "GET", tc.target, "", headers...)
		ids := got.header["X-Request-Id"]
		if len(ids) != 1 || got.status != tc.status {
			t.Errorf("%s: got %d with IDs %q", tc.what, got.status, ids)
			continue
		}
		if parsed, err := uuid.Parse(ids[0]); tc.kept && ids[0] != mine || !tc.kept && (err != nil || parsed.Version() != 7) {
			t.Errorf("%s: got ID %q", tc.what, ids[0])
		}
		if tc.status == 200 && (got.header.Get("X-Got-Request-ID") != ids[0] || got.header.Get("X-Got-Traceparent") != parent) {
			t.Errorf("%s: the backend got %q and %q", tc.what, got.header.Get("X-Got-Request-ID"), got.header.Get("X-Got-Traceparent"))
		}
		logged := fmt.Sprintf(`"request_id":%q,"trace_id":"0af7651916cd43dd8448eb211c80319c"`, ids[0])
		testkit.Eventually(t, "the access log has "+logged, func() bool { return strings.Contains(g.output.String(), logged) })
	}
	if got := g.ask(t, "GET", "/off", "", "X-Request-ID", mine); got.header.Get("X-Request-ID") != "of-the-backend" || got.header.Get("X-Got-Request-ID") != mine {
		t.Errorf("turned off, the policy still changes %v", got.header)
	}
}

// Request IDs work in a site without a gateway, and its error pages contain the ID.
func TestRequestIDsInACaddyfile(t *testing.T) {
	t.Parallel()
	g := launch(t, "Caddyfile", fmt.Sprintf(`{
	admin localhost:$ADMIN
}
:$PORT {
	log
	rgate_request_id {
		header X-Correlation-ID
	}
	basic_auth /locked {
		alice %s
	}
	respond /teapot "{http.rgate.request_id} {http.rgate.trace_id}" 418
	reverse_proxy %s
	handle_errors {
		respond "see {http.rgate.request_id}" {err.status_code}
	}
}
`, passwordHash(t, "secret"), nosyBackend(t)), nil, "run", "--config", "$FILE")
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	got := g.ask(t, "GET", "/teapot", "", "traceparent", parent)
	if id := got.header.Get("X-Correlation-ID"); len(id) != 36 || got.body != id+" 0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("got %q with ID %q", got.body, id)
	}
	got = g.get(t, "/locked")
	if id := got.header.Get("X-Correlation-ID"); got.status != http.StatusUnauthorized || len(id) != 36 || got.body != "see "+id {
		t.Errorf("got %d and %q with ID %q", got.status, got.body, id)
	}
	if got := g.get(t, "/"); got.status != 200 || got.header.Get("X-Request-ID") != "of-the-backend" {
		t.Errorf("got %d, %v", got.status, got.header)
	}
}
