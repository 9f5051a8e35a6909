package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

// hashOfKey returns the SHA-256 hash of an API key, in hex, as used in configurations.
func hashOfKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// keyedGateway replaces the key variables in configurations with hashes.
var keyedGateway = strings.NewReplacer(
	"$OLD", hashOfKey("old-key"), "$NEW", hashOfKey("new-key"), "$LATE", hashOfKey("late-key"), "$READ", hashOfKey("read-key"),
)

const (
	keyedYAML = `listen: ":$PORT"
admin: localhost:$ADMIN
api_key:
  hide_credentials: true
  keys:
    - {name: alice, sha256: $OLD, scopes: [pay, read]}
    - {name: alice, sha256: $NEW, scopes: [pay, read]}
    - {name: late, sha256: $LATE, expires: 2020-01-31}
    - {name: reader, sha256: $READ, scopes: [read], roles: [auditor], expires: 2999-01-31T12:00:00Z}
routes:
  - {path_prefix: /pay, backend: web, require: {scopes: [pay]}}
  - {path_prefix: /audit, backend: web, require: {roles: [auditor, admin]}}
  - {path_prefix: /both, backend: web, require: {scopes: [read, pay], users: [alice]}}
  - {path_prefix: /query, backend: web, api_key: {query: key, hide_credentials: true, keys: [{name: alice, sha256: $OLD}]}}
  - {path_prefix: /cookie, backend: web, api_key: {cookie: key, hide_credentials: true, keys: [{name: alice, sha256: $OLD}]}}
  - {path_prefix: /seen, backend: web, api_key: {header: Authorization, keys: [{name: alice, sha256: $OLD}]}}
  - {path_prefix: /optional, backend: web, api_key: {optional: true, keys: [{name: alice, sha256: $OLD}]}}
  - {path_prefix: /open, backend: web, api_key: off}
  - {path_prefix: /, backend: web}
backends:
  - {name: web, match_labels: {app_name: $APP}}
`
	keyedCaddyfile = `{
	admin localhost:$ADMIN
}
:$PORT {
	rgate {
		api_key {
			hide_credentials
			keys alice $OLD {
				scopes pay read
			}
			keys alice $NEW {
				scopes pay read
			}
			keys late $LATE {
				expires 2020-01-31
			}
			keys reader $READ {
				scopes  read
				roles   auditor
				expires 2999-01-31T12:00:00Z
			}
		}
		route /pay web {
			require pay
		}
		route /audit web {
			require {
				roles auditor admin
			}
		}
		route /both web {
			require read pay {
				users alice
			}
		}
		route /query web {
			api_key {
				query key
				hide_credentials
				keys alice $OLD
			}
		}
		route /cookie web {
			api_key {
				cookie key
				hide_credentials
				keys alice $OLD
			}
		}
		route /seen web {
			api_key {
				header Authorization
				keys alice $OLD
			}
		}
		route /optional web {
			api_key {
				optional
				keys alice $OLD
			}
		}
		route /open web {
			api_key off
		}
		route / web
		backend web {
			match_labels app_name=$APP
		}
	}
}
`
	keyedJSON = `{
	"admin": {"listen": "localhost:$ADMIN"},
	"apps": {"http": {"servers": {"gateway": {"listen": [":$PORT"], "routes": [{"handle": [{
		"handler": "rgate",
		"handle": [{"handler": "rgate_api_key", "hide_credentials": true, "keys": [
			{"name": "alice", "sha256": "$OLD", "scopes": ["pay", "read"]},
			{"name": "alice", "sha256": "$NEW", "scopes": ["pay", "read"]},
			{"name": "late", "sha256": "$LATE", "expires": "2020-01-31"},
			{"name": "reader", "sha256": "$READ", "scopes": ["read"], "roles": ["auditor"], "expires": "2999-01-31T12:00:00Z"}
		]}],
		"routes": [
			{"path_prefix": "/pay", "backend": "web", "handle": [{"handler": "rgate_require", "scopes": ["pay"]}]},
			{"path_prefix": "/audit", "backend": "web", "handle": [{"handler": "rgate_require", "roles": ["auditor", "admin"]}]},
			{"path_prefix": "/both", "backend": "web", "handle": [{"handler": "rgate_require", "scopes": ["read", "pay"], "users": ["alice"]}]},
			{"path_prefix": "/query", "backend": "web", "handle": [{"handler": "rgate_api_key", "query": "key", "hide_credentials": true, "keys": [{"name": "alice", "sha256": "$OLD"}]}]},
			{"path_prefix": "/cookie", "backend": "web", "handle": [{"handler": "rgate_api_key", "cookie": "key", "hide_credentials": true, "keys": [{"name": "alice", "sha256": "$OLD"}]}]},
			{"path_prefix": "/seen", "backend": "web", "handle": [{"handler": "rgate_api_key", "header": "Authorization", "keys": [{"name": "alice", "sha256": "$OLD"}]}]},
			{"path_prefix": "/optional", "backend": "web", "handle": [{"handler": "rgate_api_key", "optional": true, "keys": [{"name": "alice", "sha256": "$OLD"}]}]},
			{"path_prefix": "/open", "backend": "web", "handle": [{"handler": "rgate_api_key", "disabled": true}]},
			{"path_prefix": "/", "backend": "web"}
		],
		"backends": [{"name": "web", "match_labels": {"app_name": "$APP"}}]
	}]}]}}}}
}
`
)

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	for syntax, g := range map[string]*gateway{
		"YAML":      launch(t, "rgate.yaml", keyedGateway.Replace(keyedYAML), nil, "-c", "$FILE"),
		"Caddyfile": launch(t, "Caddyfile", keyedGateway.Replace(keyedCaddyfile), nil, "run", "--config", "$FILE"),
		"JSON":      launch(t, "gateway.json", keyedGateway.Replace(keyedJSON), nil, "run", "--config", "$FILE"),
	} {
		g.await(t, "web", 1)
		for _, tc := range []struct {
			target, header, value string
			status                int
			saw                   string // as seen by the backend: consumer, scopes, request target and key
		}{
			{"/", "X-API-Key", "old-key", 200, "alice|pay read|/"},
			{"/", "X-API-Key", "new-key", 200, "alice|pay read|/"},
			{"/", "X-API-Key", "read-key", 200, "reader|read|/"},
			{"/", "X-API-Key", "late-key", 401, ""},
			{"/", "X-API-Key", "Old-key", 401, ""},
			{"/", "X-API-Key", hashOfKey("old-key"), 401, ""},
			{"/", "X-API-Key", "", 401, ""},
			{"/?key=old-key", "Cookie", "key=old-key", 401, ""},
			{"/", "Authorization", "Bearer old-key", 401, ""},
			{"/pay/1", "X-API-Key", "new-key", 200, "alice|pay read|/pay/1"},
			{"/pay", "X-API-Key", "read-key", 403, ""},
			{"/pay", "X-API-Key", "wrong", 401, ""},
			{"/audit", "X-API-Key", "read-key", 200, "reader|read|/audit"},
			{"/audit", "X-API-Key", "old-key", 403, ""},
			{"/both", "X-API-Key", "old-key", 200, "alice|pay read|/both"},
			{"/both", "X-API-Key", "read-key", 403, ""},
			{"/query?a=%20&key=old-key&b", "X-Other", "1", 200, "alice||/query?a=%20&b"},
			{"/query?key=wrong", "X-API-Key", "old-key", 401, ""},
			{"/query", "X-API-Key", "old-key", 401, ""},
			{"/cookie", "Cookie", "a=1; key=old-key; b=2", 200, "alice||/cookie|a=1; b=2"},
			{"/seen", "Authorization", "ApiKey old-key", 200, "alice||/seen|ApiKey old-key"},
			{"/seen", "Authorization", "Bearer old-key", 200, "alice||/seen|Bearer old-key"},
			{"/seen", "Authorization", "Basic b2xkLWtleTo=", 401, ""},
			{"/optional", "X-Other", "1", 200, "||/optional"},
			{"/optional", "X-API-Key", "old-key", 200, "alice||/optional|old-key"},
			{"/optional", "X-API-Key", "wrong", 401, ""},
			{"/open", "X-API-Key", "wrong", 200, "||/open|wrong"},
		} {
			// Identity headers sent by a client are removed.
			got := g.ask(t, "GET", tc.target, "", tc.header, tc.value, "X-Consumer-Username", "root", "X-Consumer-Scopes", "all",
				"X-Consumer-Groups", "admin", "X-User-ID", "root", "X_Consumer_Scopes", "all", "X_User_Id", "root", "X-Gateway-Service", "admin")
			if got.status != tc.status {
				t.Errorf("%s: %s with %s: got %d, want %d", syntax, tc.target, tc.value, got.status, tc.status)
				continue
			}
			if challenge := got.header.Get("WWW-Authenticate"); (challenge == `ApiKey realm="rgate"`) != (tc.status == 401) {
				t.Errorf("%s: %s with %s: the challenge is %q", syntax, tc.target, tc.value, challenge)
			}
			if tc.status != 200 {
				if want := http.StatusText(tc.status) + "\n"; got.body != want {
					t.Errorf("%s: %s with %s: the client gets %q", syntax, tc.target, tc.value, got.body)
				}
				continue
			}
			e := got.echo(t)
			saw := e.Headers.Get("X-Consumer-Username") + "|" + e.Headers.Get("X-Consumer-Scopes") + "|" + e.RequestURI
			for _, name := range []string{"X-Api-Key", "Authorization", "Cookie"} {
				if value := e.Headers.Get(name); value != "" {
					saw += "|" + value
				}
			}
			if saw != tc.saw {
				t.Errorf("%s: %s with %s: the backend saw %q, want %q", syntax, tc.target, tc.value, saw, tc.saw)
			}
			for name, values := range e.Headers {
				if said := strings.Join(values, " "); said == "root" || said == "all" || said == "admin" {
					t.Errorf("%s: %s: the backend saw what the client said: %s: %s", syntax, tc.target, name, said)
				}
			}
		}
		for _, secret := range []string{"old-key", "new-key", "late-key", "read-key", "Old-key"} {
			if strings.Contains(g.output.String(), secret) {
				t.Errorf("%s: the log has the key %s", syntax, secret)
			}
		}
		for _, reason := range []string{"the API key has expired", "unknown API key", "the client lacks a required scope", "the client has none of the required roles"} {
			if !strings.Contains(g.output.String(), reason) {
				t.Errorf("%s: the log does not say that %s", syntax, reason)
			}
		}
	}
}

// API keys work in a site without the rgate directive: as a directive, and as an
// authentication provider.
func TestAPIKeysInAnySite(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{})
	const site = `{
	admin localhost:$ADMIN
}
:$PORT {
	rgate_api_key {
		keys alice $OLD {
			scopes pay
		}
	}
	reverse_proxy $IP:8080
}
`
	const provider = `{
	"admin": {"listen": "localhost:$ADMIN"},
	"apps": {"http": {"servers": {"gateway": {"listen": [":$PORT"], "routes": [{"handle": [
		{"handler": "authentication", "providers": {"rgate_api_key": {"keys": [{"name": "alice", "sha256": "$OLD", "scopes": ["pay"]}]}}},
		{"handler": "reverse_proxy", "upstreams": [{"dial": "$IP:8080"}]}
	]}]}}}}
}
`
	with := strings.NewReplacer("$OLD", hashOfKey("old-key"), "$IP", web.ip)
	for what, g := range map[string]*gateway{
		"directive": launch(t, "Caddyfile", with.Replace(site), nil, "run", "--config", "$FILE"),
		"provider":  launch(t, "gateway.json", with.Replace(provider), nil, "run", "--config", "$FILE"),
	} {
		e := g.ask(t, "GET", "/", "", "X-API-Key", "old-key", "X-Consumer-Username", "root", "X-User-ID", "root").echo(t)
		if e.Headers.Get("X-Consumer-Username") != "alice" || e.Headers.Get("X-Consumer-Scopes") != "pay" || e.Headers.Get("X-User-Id") != "" {
			t.Errorf("%s: the backend saw %v", what, e.Headers)
		}
		for _, key := range []string{"", "wrong"} {
			got := g.ask(t, "GET", "/", "", "X-API-Key", key)
			if got.status != 401 || got.header.Get("WWW-Authenticate") != `ApiKey realm="rgate"` {
				t.Errorf("%s: with %q got %d and %v", what, key, got.status, got.header)
			}
		}
	}
}

func TestKeyFileChangesWhileRunning(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys.yaml")
	write := func(text string) {
		t.Helper()
		// Write a new file and rename it, so that readers never see a partial file.
		must(t, "writing keys", os.WriteFile(file+".new", []byte(text), 0o600))
		must(t, "renaming", os.Rename(file+".new", file))
	}
	line := func(name, key string) string { return fmt.Sprintf("- {name: %s, sha256: %s}\n", name, hashOfKey(key)) }
	write(line("alice", "old-key"))
	config := fmt.Sprintf("default_response: {status_code: 204}\nroutes: [{path_prefix: /in, backend: none}]\n"+
		"backends: [{name: none, match_labels: {app_name: none}}]\napi_key: {file: %s}\n", file)
	g := startGateway(t, config)
	status := func(key string) int { return g.ask(t, "GET", "/in", "", "X-API-Key", key).status }
	await := func(when, key string, want int) {
		t.Helper()
		testkit.Eventually(t, fmt.Sprintf("the status of %s is %d after the file %s", key, want, when), func() bool { return status(key) == want })
	}
	const in, out = 503, 401 // 503: the key is accepted, but the backend has no upstreams
	await("has it", "old-key", in)
	await("does not have it", "new-key", out)

	write(line("alice", "old-key") + line("alice", "new-key"))
	await("was changed", "new-key", in)
	await("has it still", "old-key", in)
	write(line("alice", "new-key"))
	await("lost it", "old-key", out)
	await("has it still", "new-key", in)

	logged := func(message string) int { return strings.Count(g.output.String(), message) }
	for i, breakIt := range []func(){
		func() { write(line("alice", "new-key") + "- name") },
		func() { must(t, "removing", os.Remove(file)) },
	} {
		const kept = "reloading API keys failed, the previous keys stay valid"
		breakIt()
		testkit.Eventually(t, "the change is logged", func() bool { return logged(kept) == i+1 })
		await("is broken", "new-key", in)
		await("is broken", "old-key", out)
		// A configuration with an invalid key file is rejected, and the running one is
		// kept.
		g.write(t, config+"admin: localhost:$ADMIN\n")
		if done := rgate(t, nil, "reload", "-c", g.file, "--address", fmt.Sprintf("localhost:%d", g.admin)); done.code == 0 || !strings.Contains(done.stderr, "keys.yaml") {
			t.Errorf("reloading with a broken file: got %d and %q", done.code, done.stderr)
		}
		await("is broken", "new-key", in)
		before := logged("reloaded API keys")
		write(line("alice", "new-key") + line("bob", fmt.Sprint("healed-", i)))
		await("is whole again", fmt.Sprint("healed-", i), in)
		testkit.Eventually(t, "the change is logged", func() bool { return logged("reloaded API keys") == before+1 })
		if got := logged(kept); got != i+1 {
			t.Errorf("the log has %d lines, want %d", got, i+1)
		}
	}
}

func TestKeyFileIsNeededAtTheStart(t *testing.T) {
	t.Parallel()
	config := func(options string) string {
		return writeFile(t, "rgate.yaml", "routes: [{path_prefix: /, backend: web}]\nbackends: [{name: web, match_labels: {app: web}}]\napi_key: {"+options+"}\n")
	}
	broken := writeFile(t, "keys.yaml", "- {name: alice, sha256: my-secret-key}\n")
	for options, want := range map[string]string{
		"file: /nowhere/keys.yaml":                 "/nowhere/keys.yaml: no such file",
		"file: " + broken:                          `keys.yaml: line 1: invalid sha256 of key "alice": must be 64 hexadecimal digits: use the output of rgate hash-key`,
		"keys: [{name: a, sha256: my-secret-key}]": "rgate.yaml:3: invalid sha256 of key \"a\": must be 64 hexadecimal digits",
		"keys: []": "rgate.yaml:3: keys or file is required",
		"keys: [{name: a, sha256: a, expires: tomorow}]": "rgate.yaml:3: ",
	} {
		done := rgate(t, nil, "-c", config(options), "-p", fmt.Sprint(freePort(t)))
		if done.code == 0 || !strings.Contains(done.stderr, want) {
			t.Errorf("%s: got %d and %q, want %q", options, done.code, done.stderr, want)
		}
		if strings.Contains(done.stderr, "my-secret-key") {
			t.Errorf("%s: the error shows the key: %s", options, done.stderr)
		}
	}
}

// The rate limit of a key is shared by all routes and survives a reload.
func TestKeyRateLimit(t *testing.T) {
	t.Parallel()
	config := fmt.Sprintf(`default_response: {status_code: 204}
api_key: {keys: [{name: alice, sha256: %s, rate_limit: {requests: 5, window: 1h}}, {name: bob, sha256: %s}]}
routes: [{path_prefix: /a, backend: none}, {path_prefix: /b, backend: none}]
backends: [{name: none, match_labels: {app_name: none}}]
`, hashOfKey("limited"), hashOfKey("free"))
	g := startGateway(t, config)
	expect := func(target, key string, want int) {
		t.Helper()
		got := g.ask(t, "GET", target, "", "X-API-Key", key)
		if got.status != want {
			t.Errorf("%s with the key %s: got %d, want %d", target, key, got.status, want)
		}
		if after := got.header.Get("Retry-After"); want == 429 && (after == "" || after == "1") {
			t.Errorf("%s: Retry-After is %q", target, after)
		}
	}
	for range 2 {
		expect("/a", "limited", 503)
		expect("/b", "limited", 503)
	}
	g.write(t, config+"admin: localhost:$ADMIN\nstats: false\n")
	if done := rgate(t, nil, "reload", "-c", g.file, "--address", fmt.Sprintf("localhost:%d", g.admin)); done.code != 0 {
		t.Fatalf("reloading: %s", done.stderr)
	}
	expect("/a", "limited", 503)
	expect("/a", "limited", 429)
	expect("/b", "limited", 429)
	for range 10 {
		expect("/b", "free", 503)
	}
}

func TestHashKeyCommand(t *testing.T) {
	t.Parallel()
	made := rgate(t, nil, "hash-key", "--generate")
	var key, hash string
	if _, err := fmt.Sscanf(made.stdout, "key: %s\nsha256: %s\n", &key, &hash); err != nil || made.code != 0 || hashOfKey(key) != hash {
		t.Errorf("a new key: got %d, %q and %v", made.code, made.stdout, err)
	}
	if !strings.HasSuffix(made.stdout, "\n- {name: CONSUMER, sha256: "+hash+"}\n") {
		t.Errorf("a new key: got %q, want a line for the configuration", made.stdout)
	}
	if done := rgate(t, nil, "hash-key"); done.code == 0 || !strings.Contains(done.stderr, "rgate: key is required") {
		t.Errorf("no key: got %d and %q", done.code, done.stderr)
	}
	if done := rgate(t, nil, "hash-key", "my-secret"); done.code == 0 || strings.Contains(done.stdout, hashOfKey("my-secret")) {
		t.Errorf("a key as an argument: got %d and %q", done.code, done.stdout)
	}
}
