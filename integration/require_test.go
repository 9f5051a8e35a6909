package integration

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// basic_auth runs at the position of the policies, before require.
func TestRequireBehindBasicAuth(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := launch(t, "Caddyfile", `{
	admin localhost:$ADMIN
}
:$PORT {
	rgate {
		basic_auth {
			alice $2a$04$wddXz23btpLwD39oolvha.MljUwlhJbxG1LesiD/Gz0dxvz2oHmXu
			bob $2a$04$wddXz23btpLwD39oolvha.MljUwlhJbxG1LesiD/Gz0dxvz2oHmXu
		}
		route /any web {
			require
		}
		route /alice web {
			require {
				users alice
			}
		}
		route /scope web {
			require pay
		}
		backend web {
			match_labels app_name=$APP
		}
	}
}
`, nil, "run", "--config", "$FILE")
	g.await(t, "web", 1)
	for _, tc := range []struct {
		user, target string
		status       int
	}{
		{"alice", "/any", 200}, {"bob", "/any", 200}, {"", "/any", 401},
		{"alice", "/alice", 200}, {"bob", "/alice", 403}, {"alice", "/scope", 403},
	} {
		request := g.request(t, "GET", tc.target, "", "X-User-ID", "root")
		if tc.user != "" {
			request.SetBasicAuth(tc.user, "hiccup")
		}
		got, err := do(g.client, request)
		must(t, "asking", err)
		if got.status != tc.status {
			t.Errorf("%s at %s: got %d, want %d", tc.user, tc.target, got.status, tc.status)
		}
		if tc.status == 200 && got.echo(t).Headers.Get("X-User-Id") != tc.user {
			t.Errorf("%s at %s: the backend saw %v", tc.user, tc.target, got.echo(t).Headers)
		}
	}
}

// If both are optional, a token or a key is sufficient, and invalid ones are rejected.
func TestEitherTokenOrKey(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	const secret = "a-secret-of-at-least-thirty-two-bytes"
	g := startGateway(t, fmt.Sprintf(`jwt: {secret: %s, algorithms: [HS256], optional: true}
api_key: {keys: [{name: shop, sha256: %s, scopes: [pay]}], optional: true}
require: true
routes:
  - {path_prefix: /any, backend: web}
  - {path_prefix: /pay, backend: web, require: pay}
  - {path_prefix: /both, backend: web, require: {scopes: [read, pay]}}
  - {path_prefix: /claim, backend: web, require: {claims: {department: [sales], "app.level": 3}}}
  - {path_prefix: /open, backend: web, require: false}
backends: [{name: web, match_labels: {app_name: $APP}}]
`, secret, hashOfKey("right")))
	g.await(t, "web", 1)
	token := func(changes map[string]any) string {
		return "Bearer " + signed(t, jwt.SigningMethodHS256, []byte(secret), "", claimsOf(changes))
	}
	reader, seller := token(nil), token(map[string]any{"department": []string{"support", "sales"}, "app": map[string]any{"level": 3}})
	const challenge = `Bearer realm="rgate"|ApiKey realm="rgate"`
	for _, tc := range []struct {
		target, token, key string
		status             int
		challenge          string
	}{
		{"/any", "", "", 401, challenge},
		{"/any", reader, "", 200, ""},
		{"/any", "", "right", 200, ""},
		{"/any", reader, "right", 200, ""},
		{"/any", reader, "wrong", 401, `ApiKey realm="rgate"`},
		{"/any", "Bearer x.y.z", "right", 401, `Bearer realm="rgate", error="invalid_token"`},
		{"/pay", "", "right", 200, ""},
		{"/pay", reader, "", 403, `Bearer realm="rgate", error="insufficient_scope", scope="pay"`},
		{"/pay", "", "", 401, challenge},
		{"/both", reader, "right", 200, ""},
		{"/both", "", "right", 403, ""},
		{"/both", reader, "", 403, `Bearer realm="rgate", error="insufficient_scope", scope="read pay"`},
		{"/claim", seller, "", 200, ""},
		{"/claim", reader, "", 403, `Bearer realm="rgate", error="insufficient_scope"`},
		{"/claim", "", "right", 403, ""},
		{"/open", "", "", 200, ""},
		{"/open", "", "wrong", 401, `ApiKey realm="rgate"`},
	} {
		request := g.request(t, "GET", tc.target, "")
		if tc.token != "" {
			request.Header.Set("Authorization", tc.token)
		}
		if tc.key != "" {
			request.Header.Set("X-API-Key", tc.key)
		}
		got, err := do(g.client, request)
		must(t, "asking", err)
		challenge := strings.Join(got.header.Values("WWW-Authenticate"), "|")
		if got.status != tc.status || challenge != tc.challenge {
			t.Errorf("%s with the token %.12q and the key %q: got %d and %q, want %d and %q", tc.target, tc.token, tc.key, got.status, challenge, tc.status, tc.challenge)
		}
	}
}

// The service behind forward_auth sets the user. Clients cannot set it.
func TestRequireBehindForwardAuth(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	judge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch user := r.Header.Get("X-Ticket"); user {
		case "":
			w.WriteHeader(http.StatusUnauthorized)
		case "nameless":
		default:
			w.Header().Set("X-User", user)
		}
	}))
	t.Cleanup(judge.Close)
	g := launch(t, "Caddyfile", strings.ReplaceAll(`{
	admin localhost:$ADMIN
}
:$PORT {
	rgate {
		map {header.X-User} {http.auth.user.id} {
			default {header.X-User}
		}
		forward_auth $JUDGE {
			uri /check
			copy_headers X-User
		}
		route /alice web {
			require {
				users alice
			}
		}
		route /any web {
			require
		}
		backend web {
			match_labels app_name=$APP
		}
	}
}
`, "$JUDGE", judge.Listener.Addr().String()), nil, "run", "--config", "$FILE")
	g.await(t, "web", 1)
	for _, tc := range []struct {
		target, ticket string
		status         int
	}{
		{"/alice", "alice", 200}, {"/alice", "bob", 403}, {"/any", "bob", 200}, {"/any", "", 401}, {"/any", "nameless", 401},
	} {
		got := g.ask(t, "GET", tc.target, "", "X-Ticket", tc.ticket, "X-User", "alice", "X-User-ID", "alice")
		if got.status != tc.status {
			t.Errorf("%s with the ticket %q: got %d, want %d", tc.target, tc.ticket, got.status, tc.status)
		}
		if tc.status == 200 && got.echo(t).Headers.Get("X-User-Id") != tc.ticket {
			t.Errorf("%s with the ticket %q: the backend saw %v", tc.target, tc.ticket, got.echo(t).Headers)
		}
	}
}

// A request without a user is rejected, so a route without authentication is closed.
func TestRequireWithoutAuthentication(t *testing.T) {
	t.Parallel()
	g := startGateway(t, `require: true
routes: [{path_prefix: /in, backend: none}, {path_prefix: /open, backend: none, require: false}]
backends: [{name: none, match_labels: {app_name: none}}]
`)
	if got := g.ask(t, "GET", "/in", "", "X-User-ID", "root", "X-Consumer-Username", "root", "Authorization", "Basic cm9vdDpyb290"); got.status != 401 || got.header.Get("WWW-Authenticate") != `Bearer realm="rgate"` {
		t.Errorf("got %d and %v", got.status, got.header)
	}
	if got := g.get(t, "/open"); got.status != 503 {
		t.Errorf("where it is turned off: got %d", got.status)
	}
	if got := g.metric(t, "rgate_refused_requests_total", "policy", "require", "route", "/in", "code", "401"); got != 1 {
		t.Errorf("the metric is %v", got)
	}
}

// The client address is the peer address, or the address sent by a trusted proxy. Other
// clients cannot set it.
func TestIPFilterAndProxies(t *testing.T) {
	t.Parallel()
	const filter = `ip_filter: {allow: [203.0.113.0/24, "2001:db8::/32"], deny: [203.0.113.7]}
routes: [{path_prefix: /in, backend: none}, {path_prefix: /local, backend: none, ip_filter: private_ranges}]
backends: [{name: none, match_labels: {app_name: none}}]
`
	const in, out = 503, 403 // 503: the address is allowed, but the backend has no upstreams
	trusting := startGateway(t, filter+"server: {trusted_proxies: [127.0.0.1]}\n")
	doubting := startGateway(t, filter)
	for _, tc := range []struct {
		forwarded          string
		trusting, doubting int
	}{
		{"203.0.113.9", in, out},
		{"203.0.113.7", out, out},
		{"::ffff:203.0.113.9", in, out},
		{"::ffff:203.0.113.7", out, out},
		{"203.0.114.9", out, out},
		{"2001:db8::1", in, out},
		{"203.0.113.9:1234", in, out},
		{"", out, out},
		{"nonsense", out, out},
		{"203.0.113.9, 198.51.100.9", out, out}, // proxies append the peer address
		{"198.51.100.9, 203.0.113.9", in, out},
		{"203.0.113.9, 127.0.0.1", in, out},
	} {
		for g, want := range map[*gateway]int{trusting: tc.trusting, doubting: tc.doubting} {
			if got := g.ask(t, "GET", "/in", "", "X-Forwarded-For", tc.forwarded); got.status != want {
				t.Errorf("%q, with trust %v: got %d, want %d", tc.forwarded, g == trusting, got.status, want)
			}
		}
	}
	if got := doubting.ask(t, "GET", "/local", "", "X-Forwarded-For", "203.0.113.9").status; got != in {
		t.Errorf("a local client that pretends to be another: got %d, want %d", got, in)
	}
	if got := trusting.ask(t, "GET", "/local", "", "X-Forwarded-For", "203.0.113.9").status; got != out {
		t.Errorf("another client behind a local proxy: got %d, want %d", got, out)
	}
	if got := fmt.Sprint(trusting.ask(t, "GET", "/in", "", "Accept", "application/json").body); got != `{"error":"Forbidden","status":403}` {
		t.Errorf("the client gets %s", got)
	}
}

// Identity fields of a client must not reach the backend, neither in the header nor in
// trailers. A client cannot remove the gateway's fields either.
func TestClientsCannotImpersonateOthers(t *testing.T) {
	t.Parallel()
	var header, trailer http.Header
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		header, trailer = r.Header, r.Trailer
	}))
	t.Cleanup(backend.Close)
	g := launch(t, "Caddyfile", strings.ReplaceAll(`{
	admin localhost:$ADMIN
	order rgate_require after basic_auth
}
:$PORT {
	basic_auth {
		alice $2a$04$wddXz23btpLwD39oolvha.MljUwlhJbxG1LesiD/Gz0dxvz2oHmXu
	}
	rgate_require {
		users alice
	}
	handle /site/* {
		reverse_proxy $BACKEND
	}
	handle {
		rgate {
			route / web
			backend web {
				dial $BACKEND
			}
		}
	}
}
`, "$BACKEND", backend.Listener.Addr().String()), nil, "run", "--config", "$FILE")
	for _, target := range []string{"/site/", "/"} {
		for _, name := range []string{"X-User-ID", "X_User_ID", "X-Consumer-Custom", "X-Gateway-Service"} {
			request := g.request(t, "POST", target, "", name, "root", "Connection", "X-User-ID, X-Own, keep-alive", "X-Own", "1")
			request.SetBasicAuth("alice", "hiccup")
			request.Trailer = http.Header{name: {"root"}, "X-Sum": {"7"}}
			request.Body, request.ContentLength = io.NopCloser(strings.NewReader("body")), -1
			got, err := do(g.client, request)
			must(t, "asking", err)
			if user := header["X-User-Id"]; got.status != 200 || !slices.Equal(user, []string{"alice"}) {
				t.Errorf("%s at %s: got %d, and the backend takes the sender for %q", name, target, got.status, user)
			}
			if header.Get("X-Own") != "" || header.Get("X-Consumer-Custom") != "" || header.Get("X_User_ID") != "" {
				t.Errorf("%s at %s: the backend got %v", name, target, header)
			}
			if trailer.Get("X-Sum") != "7" || len(trailer) != 1 {
				t.Errorf("%s at %s: the backend got the trailers %v", name, target, trailer)
			}
		}
	}
}
