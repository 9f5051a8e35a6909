package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// passes returns how many requests are not rejected with 429. Each request is a list of
// alternating header names and values.
func (g *gateway) passes(t *testing.T, path string, requests ...[]string) (n int) {
	t.Helper()
	for _, headers := range requests {
		switch got := g.ask(t, "GET", path, "", headers...); got.status {
		case http.StatusOK:
			n++
		case http.StatusTooManyRequests:
		default:
			t.Errorf("%s: status %d", path, got.status)
		}
	}
	return n
}

// An unknown placeholder in a key would be empty, and thus the same for all requests.
func TestD12PlaceholdersOfKeysAreKnown(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, asked.Add(1))
	}))
	t.Cleanup(backend.Close)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "other") }))
	t.Cleanup(other.Close)
	g := startGateway(t, `
routes:
  - {path_prefix: /header, backend: b, rate_limit: {requests: 1, window: 1h, key: "{header.X-User}"}}
  - {path_prefix: /query, backend: b, rate_limit: {requests: 1, window: 1h, key: "{query.user}-{client_ip}"}}
  - {path_prefix: /path, backend: b, rate_limit: {requests: 1, window: 1h, key: "{path}"}}
  - {path_prefix: /cost, backend: b, rate_limit: {requests: 10, window: 1h, cost: "{header.X-Cost}"}}
  - {path_prefix: /throttle, backend: b, throttle: {requests: 1, window: 1h, max_wait: 1ms, key: "{cookie.user}"}}
  - {path_prefix: /cached, backend: b, cache: {ttl: 1h, key: "{header.X-Tenant}"}}
  - {path_prefix: /foreign, backend: b, rate_limit: {requests: 5, window: 1h, key: "{geo.country}"}}
  - {path_prefix: /sticky, sticky_key: "{header.X-User}", backends: [{name: b, weight: 1}, {name: c, weight: 1}]}
  - {path_prefix: /ring, backend: ring}
backends:
  - {name: b, dial: ["`+backend.Listener.Addr().String()+`"]}
  - {name: c, dial: ["`+other.Listener.Addr().String()+`"]}
  - {name: ring, dial: ["`+backend.Listener.Addr().String()+`", "`+other.Listener.Addr().String()+`"], lb_policy: {policy: ring_hash, key: "{header.X-User}"}}
`)
	alice, bob := []string{"X-User", "alice"}, []string{"X-User", "bob"}
	if n := g.passes(t, "/header", alice, bob, alice); n != 2 {
		t.Errorf("by a header field: %d of 3 pass, want 2", n)
	}
	if n := g.passes(t, "/query?user=a", nil) + g.passes(t, "/query?user=b", nil) + g.passes(t, "/query?user=a", nil); n != 2 {
		t.Errorf("by the query: %d of 3 pass, want 2", n)
	}
	if n := g.passes(t, "/path/a", nil) + g.passes(t, "/path/b", nil) + g.passes(t, "/path/a", nil); n != 2 {
		t.Errorf("by the path: %d of 3 pass, want 2", n)
	}
	if n := g.passes(t, "/cost", []string{"X-Cost", "6"}, []string{"X-Cost", "6"}); n != 1 {
		t.Errorf("with a cost: %d of 2 pass, want 1", n)
	}
	if n := g.passes(t, "/throttle", []string{"Cookie", "user=a"}, []string{"Cookie", "user=b"}, []string{"Cookie", "user=a"}); n != 2 {
		t.Errorf("throttled by a cookie: %d of 3 pass, want 2", n)
	}
	first, second := g.ask(t, "GET", "/cached", "", "X-Tenant", "a").body, g.ask(t, "GET", "/cached", "", "X-Tenant", "b").body
	if first == second || g.ask(t, "GET", "/cached", "", "X-Tenant", "a").body != first {
		t.Errorf("what is cached for one tenant is %q, for another %q", first, second)
	}
	for _, path := range []string{"/sticky", "/ring"} {
		seen := make(map[bool]bool) // set of the backends that responded
		for i := range 40 {
			user := []string{"X-User", fmt.Sprint("user-", i)}
			isOther := g.ask(t, "GET", path, "", user...).body == "other"
			if again := g.ask(t, "GET", path, "", user...).body == "other"; again != isOther {
				t.Errorf("%s: a user moves", path)
			}
			seen[isOther] = true
		}
		if len(seen) != 2 {
			t.Errorf("%s: all users are in one place", path)
		}
	}
	if lines := g.logged("unknown placeholder"); len(lines) != 1 || !strings.Contains(lines[0], "{geo.country}") {
		t.Errorf("the warnings at the start are %q", lines)
	}

	for key, want := range map[string]string{
		"{http.request.headers.X-User}": "did you mean {http.request.header.X-User}?",
		"{http.request.query.user}":     "did you mean {http.request.uri.query.user}?",
		"{http.request.client_ip}":      "did you mean {http.vars.client_ip}?",
		"{http.request.cookies.a}":      "did you mean {http.request.cookie.a}?",
		"a-{http.request.uri.pth}":      "did you mean {http.request.uri.path}?",
		"{http.rgate.routes}":           "did you mean {http.rgate.route}?",
		"{http.request.header.}":        "unknown placeholder {http.request.header.}",
		"{time.today}":                  "unknown placeholder {time.today}",
	} {
		for _, option := range []string{
			`rate_limit: {requests: 1, window: 1s, key: "$"}`, `throttle: {requests: 1, window: 1s, key: "$"}`, `cache: {ttl: 1s, key: "$"}`,
			`coalesce: {key: "$"}`, `concurrency: {max: 1, key: "$"}`,
		} {
			file := writeFile(t, "rgate.yaml", "routes:\n- path_prefix: /\n  backend: b\n  "+strings.ReplaceAll(option, "$", key)+"\nbackends: [{name: b, dial: [\"127.0.0.1:1\"]}]\n")
			if done := rgate(t, nil, "validate", "-c", file, "--adapter", "rgate"); done.code == 0 || !strings.Contains(done.stderr, want) || !strings.Contains(done.stderr, "rgate.yaml:4") {
				t.Errorf("%s with %s: exit code %d, %s, want %q", option, key, done.code, done.stderr, want)
			}
			if key != "{http.request.headers.X-User}" { // the options share their validation, so one key is enough
				break
			}
		}
	}
	wrong := "{http.request.headers.X-User}"
	for name, text := range map[string]string{
		"sticky.yaml": "routes: [{path_prefix: /, sticky_key: \"" + wrong + "\", backends: [{name: b, weight: 1}, {name: c, weight: 1}]}]\nbackends: [{name: b, dial: [\"127.0.0.1:1\"]}, {name: c, dial: [\"127.0.0.1:1\"]}]",
		"ring.yaml":   "routes: [{path_prefix: /, backend: b}]\nbackends: [{name: b, dial: [\"127.0.0.1:1\"], lb_policy: {policy: ring_hash, key: \"" + wrong + "\"}}]",
		"Caddyfile":   ":0 {\n\trgate_rate_limit 1 1s {\n\t\tkey " + wrong + "\n\t}\n}\n",
		"caddy.json":  `{"apps": {"http": {"servers": {"a": {"listen": [":0"], "routes": [{"handle": [{"handler": "rgate_rate_limit", "requests": 1, "window": "1s", "key": "` + wrong + `"}]}]}}}}}`,
	} {
		args := []string{"validate", "-c", writeFile(t, name, text)}
		if strings.HasSuffix(name, ".yaml") {
			args = append(args, "--adapter", "rgate")
		}
		if done := rgate(t, nil, args...); done.code == 0 || !strings.Contains(done.stderr, "did you mean {http.request.header.X-User}?") {
			t.Errorf("%s: exit code %d, %s", name, done.code, done.stderr)
		}
	}
}

// Client addresses are grouped even if the key contains other parts. Clients behind an
// IPv6 translator (NAT64, 6to4, Teredo) get one bucket per IPv4 address.
func TestD14OneClientIsOneKey(t *testing.T) {
	t.Parallel()
	echo := startEcho(t)
	g := startGateway(t, `
server: {trusted_proxies: [127.0.0.1]}
routes:
  - {path_prefix: /plain, backend: b, rate_limit: {requests: 1, window: 1h}}
  - {path_prefix: /text, backend: b, rate_limit: {requests: 1, window: 1h, key: "{http.vars.client_ip} {http.request.method}"}}
  - {path_prefix: /field, backend: b, rate_limit: {requests: 1, window: 1h, key: "{http.request.header.X-Client}"}}
  - {path_prefix: /throttle, backend: b, throttle: {requests: 1, window: 1h, max_wait: 1ms, key: "from {client_ip}"}}
  - {path_prefix: /size, backend: b, rate_limit: {requests: 1, window: 1h, ipv6_prefix: 48, key: "a {client_ip}"}}
backends: [{name: b, dial: ["`+echo+`"]}]`)
	from := func(addresses ...string) (all [][]string) {
		for _, address := range addresses {
			all = append(all, []string{"X-Forwarded-For", address, "X-Client", address})
		}
		return all
	}
	for _, path := range []string{"/plain", "/text", "/field", "/throttle"} {
		for _, test := range []struct {
			what      string
			addresses [][]string
			want      int
		}{
			{"of one network", from("2001:db8::1", "2001:db8::ffff:1"), 1},
			{"of two networks", from("2001:db8:0:1::1", "2001:db8:0:2::1"), 2},
			{"of NAT64", from("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2", "192.0.2.1", "::ffff:192.0.2.2"), 2},
			{"of a local NAT64", from("64:ff9b:1::192.0.2.1", "64:ff9b:1::192.0.2.2", "64:ff9b:1::192.0.2.1"), 2},
			{"of 6to4", from("2002:c633:6401::1", "2002:c633:6401:7::1", "198.51.100.1", "2002:c633:6402::1"), 2},
			{"of Teredo", from("2001:0:4136:e378:8000:63bf:34ff:8efe", "203.0.113.1", "2001:0:4136:e378:8000:63bf:34ff:8efd"), 2}, // 34ff:8efe is 203.0.113.1 with inverted bits
		} {
			if n := g.passes(t, path, test.addresses...); n != test.want {
				t.Errorf("%s: %d clients %s, want %d", path, n, test.what, test.want)
			}
		}
	}
	if n := g.passes(t, "/size", from("2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:1::1")...); n != 2 {
		t.Errorf("with a prefix of 48: %d clients, want 2", n)
	}
}
