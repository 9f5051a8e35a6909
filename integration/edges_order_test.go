package integration

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

const (
	orderKey  = "test"
	orderHash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
)

// orderSyntaxes holds one gateway in three syntaxes, by file name. $BACKEND is the
// address of its backend.
var orderSyntaxes = map[string]string{
	"rgate.yaml": `
admin: localhost:$ADMIN
listen: ":$PORT"
handle:
  - {handler: subroute, routes: [{match: [{path: [/gateway*, /wall*]}], handle: [{handler: static_response, body: secret}]}]}
groups:
  - path_prefix: /group
    handle: [{handler: static_response, body: secret}]
    routes:
      - {path_prefix: /key, backend: web, api_key: {keys: [{name: a, sha256: $HASH}]}}
      - {path_prefix: /open, backend: web}
routes:
  - {path_prefix: /own, backend: web, handle: [{handler: static_response, body: secret}], api_key: {keys: [{name: a, sha256: $HASH}]}}
  - path_prefix: /fed
    backend: web
    handle:
      - {handler: headers, request: {set: {X-Api-Key: ["{http.request.uri.query.key}"]}}}
      - {handler: static_response, body: secret}
    api_key: {keys: [{name: a, sha256: $HASH}]}
  - {path_prefix: /gateway, backend: web, api_key: {keys: [{name: a, sha256: $HASH}]}}
  - {path_prefix: /wall, backend: web, ip_filter: {deny: [127.0.0.1]}}
  - {path_prefix: /behind, backend: keyed, handle: [{handler: static_response, body: secret}]}
backends:
  - {name: web, dial: [$BACKEND]}
  - {name: keyed, dial: [$BACKEND], api_key: {keys: [{name: a, sha256: $HASH}]}}
`,
	"Caddyfile": `
{
	admin localhost:$ADMIN
}
:$PORT {
	rgate {
		@secret path /gateway* /wall*
		respond @secret secret
		request_header /fed* X-Api-Key {query.key}
		group /group {
			respond secret
			route /key web {
				api_key {
					keys {
						name a
						sha256 $HASH
					}
				}
			}
			route /open web
		}
		route /own web {
			respond secret
			api_key {
				keys {
					name a
					sha256 $HASH
				}
			}
		}
		route /fed web {
			respond secret
			api_key {
				keys {
					name a
					sha256 $HASH
				}
			}
		}
		route /gateway web {
			api_key {
				keys {
					name a
					sha256 $HASH
				}
			}
		}
		route /wall web {
			ip_filter {
				deny 127.0.0.1
			}
		}
		route /behind keyed {
			respond secret
		}
		backend web {
			dial $BACKEND
		}
		backend keyed {
			dial $BACKEND
			api_key {
				keys {
					name a
					sha256 $HASH
				}
			}
		}
	}
}
`,
	"caddy.json": `
{"admin": {"listen": "localhost:$ADMIN"}, "apps": {"http": {"servers": {"srv0": {"listen": [":$PORT"], "routes": [{"handle": [{"handler": "rgate",
  "handle": [{"handler": "subroute", "routes": [{"match": [{"path": ["/gateway*", "/wall*"]}], "handle": [{"handler": "static_response", "body": "secret"}]}]}],
  "groups": [{"path_prefix": "/group", "handle": [{"handler": "static_response", "body": "secret"}], "routes": [
    {"path_prefix": "/key", "backend": "web", "handle": [{"handler": "rgate_api_key", "keys": [{"name": "a", "sha256": "$HASH"}]}]},
    {"path_prefix": "/open", "backend": "web"}]}],
  "routes": [
    {"path_prefix": "/own", "backend": "web", "handle": [{"handler": "static_response", "body": "secret"}, {"handler": "rgate_api_key", "keys": [{"name": "a", "sha256": "$HASH"}]}]},
    {"path_prefix": "/fed", "backend": "web", "handle": [
      {"handler": "headers", "request": {"set": {"X-Api-Key": ["{http.request.uri.query.key}"]}}},
      {"handler": "static_response", "body": "secret"}, {"handler": "rgate_api_key", "keys": [{"name": "a", "sha256": "$HASH"}]}]},
    {"path_prefix": "/gateway", "backend": "web", "handle": [{"handler": "rgate_api_key", "keys": [{"name": "a", "sha256": "$HASH"}]}]},
    {"path_prefix": "/wall", "backend": "web", "handle": [{"handler": "rgate_ip_filter", "deny": ["127.0.0.1"]}]},
    {"path_prefix": "/behind", "backend": "keyed", "handle": [{"handler": "static_response", "body": "secret"}]}],
  "backends": [{"name": "web", "dial": ["$BACKEND"]},
    {"name": "keyed", "dial": ["$BACKEND"], "around": [{"handler": "rgate_api_key", "keys": [{"name": "a", "sha256": "$HASH"}]}]}]
}]}]}}}}}
`,
}

// launchSyntax runs a gateway whose syntax is derived from the file name.
func launchSyntax(t testing.TB, name, config string) *gateway {
	t.Helper()
	args := []string{"run", "--config", "$FILE"}
	switch {
	case strings.HasSuffix(name, ".yaml"):
		args = append(args, "--adapter", "rgate")
	case name == "Caddyfile":
		args = append(args, "--adapter", "caddyfile")
	}
	return launch(t, name, config, nil, args...)
}

// Handlers that respond run behind authentication, whether they belong to a route, an
// outer level or a backend.
func TestD1ResponsesOfHandlersNeedTheKey(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.NotFoundHandler())
	defer backend.Close()
	words := strings.NewReplacer("$BACKEND", backend.Listener.Addr().String(), "$HASH", orderHash)
	for name, config := range orderSyntaxes {
		g := launchSyntax(t, name, words.Replace(config))
		for target, want := range map[string][2]int{ // status without and with the key
			"/own":                 {401, 200},
			"/group/key":           {401, 200},
			"/group/open":          {200, 200},
			"/gateway":             {401, 200},
			"/wall":                {403, 403},
			"/behind":              {401, 200},
			"/fed":                 {401, 401},
			"/fed?key=" + orderKey: {200, 200}, // a handler that never responds keeps its position
		} {
			for i, header := range [][]string{nil, {"X-Api-Key", orderKey}} {
				got := g.ask(t, http.MethodGet, target, "", header...)
				if got.status != want[i] || (got.status == 200) != (got.body == "secret") {
					t.Errorf("%s: %s %v: got %d %q, want %d", name, target, header, got.status, got.body, want[i])
				}
			}
		}
		if warned := strings.Count(g.output.String(), "run after authentication"); warned != 1 {
			t.Errorf("%s: %d warnings about the order of handlers, want one", name, warned)
		}
	}
	g := launchSyntax(t, "rgate.yaml", words.Replace("legacy: [handlers_before_authentication]"+orderSyntaxes["rgate.yaml"]))
	if got := g.get(t, "/own"); got.body != "secret" {
		t.Errorf("with the earlier order restored: got %d %q", got.status, got.body)
	}
}

// A stored response must not be served before an inner handler that would reject the
// request.
func TestC1StoredResponsesDoNotPassHandlers(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	waiting, release := make(chan struct{}, 10), make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case down.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case strings.HasPrefix(r.URL.Path, "/coalesce"):
			waiting <- struct{}{}
			<-release
		}
		_, _ = io.WriteString(w, "secret")
	}))
	defer backend.Close()
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Pass") == "" { // a header field without standard semantics
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer auth.Close()
	const config = `
{
	admin localhost:$ADMIN
}
:$PORT {
	rgate {
		header /none X-A b
		@some path /some*
		cache @some 30s
		group /cache {
			cache 30s
			route /respond web {
				@outside not header Pass *
				respond @outside 403
			}
			route /forward web {
				forward_auth $AUTH {
					uri /check
				}
			}
			route /around guarded
		}
		route /some web {
			@outside not header Pass *
			respond @outside 403
		}
		group /coalesce {
			coalesce
			route /respond web {
				@outside not header Pass *
				respond @outside 403
			}
		}
		group /fallback {
			fallback {
				cached 10m
				ignore_fields Pass
				statuses 503
			}
			route /respond web {
				@outside not header Pass *
				respond @outside 403
			}
		}
		backend web {
			dial $BACKEND
		}
		backend guarded {
			dial $BACKEND
			around {
				@outside not header Pass *
				respond @outside 403
			}
		}
	}
}
`
	g := launchSyntax(t, "Caddyfile", strings.NewReplacer("$BACKEND", backend.Listener.Addr().String(), "$AUTH", auth.Listener.Addr().String()).Replace(config))
	// ignore_fields Pass allows responses to be shared regardless of the field Pass.
	check := func(target string, kept bool) {
		t.Helper()
		for i := range 2 {
			got := g.ask(t, http.MethodGet, target, "", "Pass", "yes")
			if got.body != "secret" || kept && i == 1 && !strings.Contains(got.header.Get("Cache-Status"), "hit") {
				t.Errorf("%s: got %d %q, %v", target, got.status, got.body, got.header)
			}
		}
		if got := g.get(t, target); got.status != http.StatusForbidden || strings.Contains(got.body, "secret") {
			t.Errorf("%s: a stored response passed the handler: %d %q", target, got.status, got.body)
		}
	}
	for _, target := range []string{"/cache/respond", "/cache/forward", "/cache/around", "/some"} {
		check(target, false)
	}
	check("/fallback/respond", false)
	down.Store(true)
	if got := g.ask(t, http.MethodGet, "/fallback/respond", "", "Pass", "yes"); got.status != 200 {
		t.Errorf("nothing stood in for the backend: %d", got.status)
	}
	if got := g.get(t, "/fallback/respond"); got.status != http.StatusForbidden {
		t.Errorf("a kept response passed the handler: %d %q", got.status, got.body)
	}
	down.Store(false)

	led := make(chan response, 1)
	go func() {
		got, _ := do(g.client, g.request(t, http.MethodGet, "/coalesce/respond", "", "Pass", "yes"))
		led <- got
	}()
	<-waiting
	if got := g.get(t, "/coalesce/respond"); got.status != http.StatusForbidden {
		t.Errorf("a shared response passed the handler: %d %q", got.status, got.body)
	}
	close(release)
	if got := <-led; got.body != "secret" {
		t.Errorf("the first request got %d %q", got.status, got.body)
	}
	if warned := strings.Count(g.output.String(), "run after all other handlers"); warned != 1 {
		t.Errorf("%d warnings about the order of handlers, want one", warned)
	}
}
