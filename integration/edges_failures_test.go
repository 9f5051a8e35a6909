package integration

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Failed authentications count against the rate limit of an address, although the limit
// runs after authentication.
func TestD4GuessesCountAgainstTheLimitOfAnAddress(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("login") {
			w.WriteHeader(http.StatusUnauthorized)
		}
		fmt.Fprint(w, "in")
	}))
	t.Cleanup(backend.Close)
	const key = "the key of alice"
	basic := func(password string) []string {
		return []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("ops:"+password))}
	}
	auth := map[string]string{
		"key":   `api_key: {keys: [{name: alice, sha256: "` + hashOfKey(key) + `"}]}`,
		"token": `jwt: {algorithms: [HS256], secret: "` + testSecret + `"}`,
		"basic": `handle: [{handler: authentication, providers: {http_basic: {accounts: [{username: ops, password: "` + passwordHash(t, "right") + `"}], hash: {algorithm: bcrypt}}}}]`,
	}
	good := map[string][]string{"key": {"X-API-Key", key}, "token": bearer(t, nil), "basic": basic("right")}
	wrong := func(kind string, n int) []string {
		switch guess := fmt.Sprint("guess-", n); kind {
		case "key":
			return []string{"X-API-Key", guess}
		case "token":
			return []string{"Authorization", "Bearer " + guess}
		default:
			return basic(guess)
		}
	}
	const limit = `rate_limit: {requests: 4, window: 1h, key: "$KEY"}`
	config := func(legacy string) string {
		var b strings.Builder
		b.WriteString("server: {trusted_proxies: [127.0.0.1]}\n" + legacy + strings.ReplaceAll(limit, "$KEY", "{client_ip}") + "\nroutes:\n")
		for kind, options := range auth {
			fmt.Fprintf(&b, "- {path_prefix: /%s, backend: b, %s}\n", kind, options)
			fmt.Fprintf(&b, "- {path_prefix: /own/%s, backend: b, %s, %s}\n", kind, options, strings.ReplaceAll(limit, "$KEY", "{http.vars.client_ip} own"))
		}
		fmt.Fprintf(&b, "- {path_prefix: /user, backend: b, %s, %s}\n", auth["key"], strings.ReplaceAll(limit, "$KEY", "{http.auth.user.id}"))
		fmt.Fprintf(&b, "- {path_prefix: /all, backend: b, %s, rate_limit: {requests: 4, window: 1h, key: all}}\n", auth["key"])
		fmt.Fprintf(&b, "- {path_prefix: /inner, backend: inner, %s}\n", auth["key"])
		b.WriteString("groups: [{path_prefix: /group, " + auth["key"] + ", routes: [{path_prefix: /a, backend: b}]}]\n")
		fmt.Fprintf(&b, "backends:\n- {name: b, dial: [%q]}\n- {name: inner, dial: [%q], %s}\n", backend.Listener.Addr(), backend.Listener.Addr(), strings.ReplaceAll(limit, "$KEY", "{client_ip}"))
		return b.String()
	}
	g := startGateway(t, config(""))
	client := 0
	statuses := func(g *gateway, path string, headers ...[]string) (all []int) {
		client++
		for _, fields := range headers {
			request := append([]string{"X-Forwarded-For", fmt.Sprintf("203.0.113.%d", client)}, fields...)
			got := g.ask(t, "GET", path, "", request...)
			if got.status == http.StatusTooManyRequests && got.header.Get("Retry-After") == "" {
				t.Errorf("%s: a refusal without Retry-After", path)
			}
			all = append(all, got.status)
		}
		return all
	}
	same := func(what string, got []int, want string) {
		t.Helper()
		if text := strings.Trim(fmt.Sprint(got), "[]"); text != want {
			t.Errorf("%s: got %s, want %s", what, text, want)
		}
	}
	for _, kind := range []string{"key", "token", "basic"} {
		paths := []string{"/" + kind, "/own/" + kind}
		if kind == "key" {
			paths = append(paths, "/group/a", "/inner")
		}
		for _, path := range paths {
			guesses := func(n int) (all [][]string) {
				for i := range n {
					all = append(all, wrong(kind, i))
				}
				return all
			}
			same(path+", guesses", statuses(g, path, guesses(6)...), "401 401 401 401 429 429")
			same(path+", guesses and the right one", statuses(g, path, append(guesses(2), good[kind], good[kind], good[kind])...), "401 401 200 200 429")
			same(path+", the right one", statuses(g, path, good[kind], good[kind], good[kind], good[kind], good[kind]), "200 200 200 200 429")
			same(path+", 401 of the backend", statuses(g, path+"?login", good[kind], good[kind], good[kind], good[kind], good[kind]), "401 401 401 401 429")
		}
	}
	// Failed attempts must not use up limits that are shared or belong to other users.
	same("a limit by user", statuses(g, "/user", wrong("key", 1), wrong("key", 2), wrong("key", 3), wrong("key", 4), wrong("key", 5), good["key"]), "401 401 401 401 401 200")
	same("a limit for all", statuses(g, "/all", wrong("key", 1), wrong("key", 2), wrong("key", 3), wrong("key", 4), wrong("key", 5), good["key"]), "401 401 401 401 401 200")
	const warning = "failed authentications count"
	if lines := g.logged(warning); len(lines) != 1 || !strings.Contains(lines[0], `"/key"`) || strings.Contains(lines[0], `"/user"`) {
		t.Errorf("the warnings at the start are %q", lines)
	}

	earlier := startGateway(t, config("legacy: [uncounted_failures]\n"))
	same("as in earlier versions", statuses(earlier, "/key", wrong("key", 1), wrong("key", 2), wrong("key", 3), wrong("key", 4), wrong("key", 5)), "401 401 401 401 401")
}
