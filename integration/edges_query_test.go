package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A query condition must match even if other parts of the query cannot be decoded.
// Otherwise, the request reaches a less restrictive route, while the backend still reads
// the parameter.
func TestQueryIsReadByRoutesAsByBackends(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-User"), "|", r.URL.RawQuery)
	}))
	t.Cleanup(backend.Close)
	hash := sha256.Sum256([]byte("a-key-of-24-characters-x"))
	g := startGateway(t, `
admin: localhost:$ADMIN
api_key: {query: key, hide_credentials: true, keys: [{name: alice, sha256: `+hex.EncodeToString(hash[:])+`}]}
routes:
  - {path_prefix: /, backend: b, api_key: off}
  - {path_prefix: /, query: {admin: "1"}, backend: b}
  - {path_prefix: /any, backend: b, api_key: off}
  - {path_prefix: /any, query: {debug: "*"}, backend: b}
  - {path_prefix: /deep, query: {admin: "1"}, backend: b}
  - {path_prefix: /key, backend: b}
  - path_prefix: /edit
    backend: b
    api_key: off
    transform: {request: {query: {delete: [debug]}, headers: {set: {X-User: "{http.request.uri.query.user}"}}}}
  - {path_prefix: /limit, backend: b, api_key: off, rate_limit: {requests: 1, window: 1h, key: "{query.user}"}}
backends: [{name: b, dial: ["`+backend.Listener.Addr().String()+`"]}]`)
	const key = "key=a-key-of-24-characters-x"
	for _, tc := range []struct {
		target string
		status int
		body   string // expected if the status is 200
	}{
		// The guarded route matches regardless of other parameters.
		{"/?admin=1", 401, ""}, {"/?admin=1&%", 401, ""}, {"/?%&admin=1", 401, ""}, {"/?admin=1&x=%zz", 401, ""},
		{"/?%61dmin=%31&a;b", 401, ""}, {"/any?debug&%", 401, ""}, {"/?admin=1&%&" + key, 200, "|admin=1&%"},
		// Backends parse these queries differently.
		{"/?admin=1;x", 400, ""}, {"/?x;admin=1", 400, ""}, {"/?x=1;%61dmin=1&y", 400, ""}, {"/any?debug=%", 400, ""}, {"/any?x=1;debug", 400, ""},
		{"/x/../deep?x=1;admin=1", 400, ""}, // dot segments and an ambiguous query
		// Backends parse these queries alike.
		{"/?admin=2&%", 200, "|admin=2&%"}, {"/?q=a;b&x=100%", 200, "|q=a;b&x=100%"}, {"/?admin=1%", 200, "|admin=1%"}, {"/?q=%3Badmin=1", 200, "|q=%3Badmin=1"},
		// API keys.
		{"/key?" + key, 200, "|"}, {"/key?a=%&" + key + "&b=;", 200, "|a=%&b=;"}, {"/key?" + key + ";x", 401, ""}, {"/key?a;" + key, 401, ""},
		{"/key?" + key + "&a;" + key, 401, ""}, {"/key?" + key + "%", 401, ""},
		// Transformations.
		{"/edit?debug=1&a=%&user=b%", 200, "b%|a=%&user=b%"}, {"/edit?debug=%&a;b", 200, "|a;b"}, {"/edit?debug=1;a", 200, "|"},
		{"/edit?a=1;debug=1", 400, ""}, {"/edit?debug;a=1", 400, ""},
		// Rate limits.
		{"/limit?user=a", 200, "|user=a"}, {"/limit?user=b", 200, "|user=b"}, {"/limit?user=a&%", 429, ""}, {"/limit?x=%zz&user=b", 429, ""},
	} {
		got := g.rawGet(t, tc.target)
		if got.status != tc.status || got.status == 200 && got.body != tc.body {
			t.Errorf("%s: got %d and %q, want %d and %q", tc.target, got.status, got.body, tc.status, tc.body)
		}
	}
}
