package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/testkit"
)

// send sends a GET request with exactly this request target.
func send(t testing.TB, server, target string) testResponse {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(server, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", target)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	return testResponse{response.StatusCode, string(body), response.Header}
}

// guarded starts a gateway that responds with 401 to some paths of its backend. reached
// returns the number of requests that the backend received.
func guarded(t testing.TB) (server string, reached func() int32) {
	address, requests := testkit.Backend(t, nil)
	const deny = `"handle": [{"handler": "static_response", "status_code": 401}]`
	g := start(t, fmt.Sprintf(`{
		"routes": [
			{"path_prefix": "/", "backend": "b"},
			{"path_prefix": "/admin", "backend": "b", %[1]s},
			{"path_prefix": "/public", "backend": "b"},
			{"path_prefix": "/segment", "match": "segment", "backend": "b"},
			{"path_prefix": "/files", "backend": "b"},
			{"path_prefix": "/files/private", "match": "segment", "backend": "b", %[1]s},
			{"path_prefix": "/users/:id/*", "backend": "b"},
			{"path_prefix": "/users/:id/secret", "backend": "b", %[1]s},
			{"path_prefix": "/strip/api", "strip_prefix": true, "backend": "b"}
		],
		"backends": [{"name": "b", "dial": [%[2]s]}]
	}`, deny, quoted(address)))
	return serve(t, g, &caddyhttp.Server{}), requests.Load
}

func TestAmbiguousPaths(t *testing.T) {
	server, reached := guarded(t)
	for _, target := range []string{
		// Dot segments in all encodings.
		"/public/../admin", "/public/..//admin", "/public/./../admin", "/public/x/../../admin/", "/x/../admin", "/./admin",
		"/%2e/admin", "/public/%2e%2e/admin", "/public/%2E%2E/admin", "/public/.%2e/admin", "/public/%2e./admin",
		"/public/..%2fadmin", "/public/..%2Fadmin", "/public%2f..%2fadmin", "/public/%2e%2e%2fadmin", "/public%2f%2e%2e/admin",
		"/../admin", "/../../../admin", "/public/../../../admin", "/.%2fadmin", "/public/..", "/public/%2e%2e/", "/public/../",
		"http://x/public/../admin", "/public/../admin?x=/../public", "/x//../../admin", "/x/y//../../../admin",
		// Repeated slashes.
		"//admin", "///admin", "//admin/", "/%2fadmin", "/%2Fadmin", "//%2fadmin", "/x/..//admin",
		// Encoded slashes, which backends may or may not decode.
		"/segment%2fx", "/segment%2Fadmin", "/files/private%2fx", "/files%2fprivate/x", "/files%2Fprivate",
		// Backslashes.
		`/public\..\admin`, `/public/..\admin`, `/\admin`, `/x/..\..\admin`, "/public/..%5cadmin", "/public%5C..%5Cadmin",
		"/%5cadmin", "/public/%2e%2e%5cadmin", `/\/admin`, `/files\private`,
		// Parameters after a semicolon.
		"/public/..;/admin", "/public/..;a=b/admin", "/;/admin", "/;a=b/admin", "/.;/admin", "/public/..;%2fadmin",
		"/public/%2e%2e;/admin", "/files/private;x/y", "/files/private;x", "/public;x/../admin", "/public/..%3b/admin",
		// Encoded twice.
		"/public/%252e%252e/admin", "/public/%252e%252e%252fadmin", "/public/..%252fadmin", "/%252fadmin", "/public/..%255cadmin",
		"/%2561dmin", "/files/%2570rivate/x",
		// Paths that leave a parameter's value or the stripped prefix, and return.
		"/users/1/x/../../2/x", "/users/1/../2/x", "/users/1/x/..;/..;/2/x", "/users/1/..%2f2/x", "/users/./2/x", "/users//2/x",
		"/users/1/x/../secret", "/users/1/%2e/secret", "/users/1/secret;x", "/users/1//secret",
		"/users/1/secret/.", "/users/1/secret/x/..", "/users/1/secret//.",
		"/strip/api/../api/x", "/strip/api/../../strip/api/x", "/strip/api/../admin", "/strip/apix/../api/x",
	} {
		before := reached()
		got := send(t, server, target)
		if got.status != http.StatusBadRequest || got.body != "Bad Request\n" {
			t.Errorf("%s: got %d %q, want 400", target, got.status, got.body)
		}
		if reached() != before {
			t.Errorf("%s reached the backend as %q", target, got.body)
		}
	}
}

func TestUnambiguousPaths(t *testing.T) {
	server, reached := guarded(t)
	for _, target := range []string{
		"/", "/x", "/public", "/public/", "/public/a/../b", "/public/a/./b", "/public/./a", "/public/a/..", "/public//a", "/public/a//",
		"/public%2fadmin", "/public/%2e", "/.well-known/acme", "/public/.hidden/..x/...", "/x/.../admin", "/public/a%2Fb", "/files/a%2Fb",
		"/files/a%2fb?c=%2F..%2F", "/files/a%252Fb", "/public/50%25", "/public/%25zz", "/public/a;b=c/d;e", "/public;x=1", "/a;b/c",
		`/public/a\b`, "/public/a%5Cb", "/public/a|b", "/public/caf%C3%A9", "/%C3%A9", "/x/%c0%ae%c0%ae/admin", "/x/admin", "/public/%00",
		"/segment", "/segment/", "/segment/x/../y", "/segment/a%2Fb", "/Admin", "/public/http://x/y", "/?path=/../admin", "/x?//admin",
		"/users/1/x", "/users/1/secret/", "/users/1/a/../b", "/users/1//x", "/users/a;b/x", "/users/1/a%2Fb", "/users/%2531/x", "/users/1/50%25",
		"/files/privately", "/files/public/private",
	} {
		if got := send(t, server, target); got.status != 200 || got.body != "GET "+target {
			t.Errorf("%s: got %d %q, want it unchanged", target, got.status, got.body)
		}
	}
	for target, want := range map[string]string{
		"/strip/api/a/../b": "/a/../b",
		"/strip/api/a/..":   "/a/..",
		"/strip/api//b":     "//b",
		"/strip/apix//b":    "/x//b",
		"/strip/api/a%2Fb":  "/a%2Fb",
		"/strip/api/a;b":    "/a;b",
	} {
		if got := send(t, server, target); got.body != "GET "+want {
			t.Errorf("%s: got %d %q, want %s", target, got.status, got.body, want)
		}
	}
	before := reached()
	for _, target := range []string{"/admin", "/admin/../admin", "/admin/x/../y", "/admin%2fx", "/adminx", "/users/7/secret", "/admin;x/y"} {
		if got := send(t, server, target); got.status != http.StatusUnauthorized {
			t.Errorf("%s: got %d, want the route's own 401", target, got.status)
		}
	}
	if reached() != before {
		t.Error("a request that its route keeps out reached the backend")
	}
}
