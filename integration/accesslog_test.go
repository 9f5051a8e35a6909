package integration

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

// Log entries of all modules contain no credentials. Other request data is logged.
func TestAccessLogHasNoSecrets(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("breaks") { // makes reverse_proxy log the request with an error
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("not all of it"))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(backend.Close)
	config := strings.NewReplacer("$BACKEND", backend.Listener.Addr().String(), "$HASH", hashOfKey("key-to-hide")).Replace(`
access_log: true
routes:
  - {path_prefix: /header, backend: web, api_key: {keys: [{name: alice, sha256: $HASH}]}}
  - {path_prefix: /other, backend: web, api_key: {header: X-Partner, keys: [{name: alice, sha256: $HASH}]}}
  - {path_prefix: /query, backend: web, api_key: {query: key, keys: [{name: alice, sha256: $HASH}]}}
  - {path_prefix: /bearer, backend: web, api_key: {header: Authorization, cookie: key, keys: [{name: alice, sha256: $HASH}]}}
  - {path_prefix: /token, backend: web, jwt: {secret: 0123456789abcdef0123456789abcdef, algorithms: [HS256], optional: true, token_from: ["header:X-Token", "query:token"]}}
backends: [{name: web, dial: ["$BACKEND"]}]
`)
	g := startGateway(t, config)
	for _, tc := range []struct {
		target  string
		headers []string
		status  int
	}{
		{"/header/0", []string{"X-API-Key", "key-to-hide", "X-Shown", "to be seen"}, 200},
		{"/header/1", []string{"x-api-key", "wrong-key-to-hide"}, 401},
		{"/other/2", []string{"X-Partner", "key-to-hide"}, 200},
		{"/query/3?a=b&key=key-to-hide", nil, 200},
		{"/bearer/4", []string{"Authorization", "Bearer key-to-hide"}, 200},
		{"/bearer/5", []string{"Cookie", "key=key-to-hide"}, 200},
		{"/token/6?token=token-to-hide", nil, 401},
		{"/token/7", []string{"X-Token", "token-to-hide"}, 401},
	} {
		wantStatus(t, tc.target, g.ask(t, "GET", tc.target, "", tc.headers...), tc.status)
	}
	// The response is truncated, and the client receives an error.
	request := g.request(t, "GET", "/header/8?breaks", "", "X-API-Key", "key-to-hide")
	if _, err := do(g.client, request); err == nil {
		t.Error("the response is complete")
	}
	for _, want := range []string{
		`"uri":"/header/0"`, `"X-Shown":["to be seen"]`, `"uri":"/header/1"`, `"uri":"/query/3?a=b&key=REDACTED"`, `"uri":"/token/6?token=REDACTED"`,
		`"uri":"/token/7"`, `"X-Api-Key":"REDACTED"`, `"X-Partner":"REDACTED"`, `"X-Token":"REDACTED"`, `"uri":"/header/8?breaks`, "aborting with incomplete response",
	} {
		testkit.Eventually(t, "the log has "+want, func() bool { return strings.Contains(g.output.String(), want) })
	}
	if strings.Contains(g.output.String(), "to-hide") {
		t.Error("there is a key or a token in the log")
	}
}
