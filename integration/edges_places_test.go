package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rgate/rgate/internal/testkit"
)

// namedBackend responds with its name and the request's path and X-Id, and marks
// responses as public. It responds with 503 while down is set.
type namedBackend struct {
	*httptest.Server
	down atomic.Bool
	hold func() // called before the response to a request with the query "hold"
}

func newNamedBackend(t testing.TB, name string) *namedBackend {
	b := new(namedBackend)
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b.down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if strings.Contains(r.URL.RawQuery, "hold") {
			b.hold()
		}
		w.Header().Set("Cache-Control", "public, max-age=60")
		_, _ = fmt.Fprintf(w, "%s %s %s", name, r.URL.Path, r.Header.Get("X-Id"))
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *namedBackend) dial() string { return b.Listener.Addr().String() }

// Responses must not be shared between backends after a handler has rewritten the URL.
// The test covers separate blocks, addresses and gateways, and each directive that
// rewrites.
func TestC8ResponsesStayWhereTheyWereAskedFor(t *testing.T) {
	t.Parallel()
	a, b := newNamedBackend(t, "a"), newNamedBackend(t, "b")
	other := freePort(t)
	storing := map[string]string{
		"cache": "rgate_cache 30s", "coalesce": "rgate_coalesce",
		"fallback": "rgate_fallback {\n cached 10m\n statuses 503\n }",
	}
	var sites strings.Builder
	for name, directive := range storing {
		fmt.Fprintf(&sites, `
	handle_path /%[1]s/a/* {
		%[2]s
		reverse_proxy $A
	}
	handle_path /%[1]s/b/* {
		%[2]s
		reverse_proxy $B
	}
	handle /%[1]s/admin/* {
		uri strip_prefix /%[1]s/admin
		%[2]s
		reverse_proxy $A
	}
	handle /%[1]s/open/* {
		uri strip_prefix /%[1]s/open
		%[2]s
		reverse_proxy $A
	}
	handle /%[1]s/front/* {
		rewrite * /index.php
		%[2]s
		reverse_proxy $A {
			header_up X-Id {http.request.orig_uri.path}
		}
	}
	handle /%[1]s/moved/* {
		vars id {path.2}
		rgate_transform {
			request {
				headers {
					set X-Id {http.vars.id}
				}
				path /users
			}
		}
		%[2]s
		reverse_proxy $A
	}
	handle /%[1]s/host/* {
		request_header Host inner.test
		%[2]s
		reverse_proxy $A
	}
`, name, directive)
	}
	config := `
{
	admin localhost:$ADMIN
	auto_https off
}
http://:$PORT {` + sites.String() + `
	handle /gateway/one/* {
		uri strip_prefix /gateway/one
		rgate {
			cache 30s
			backend web {
				dial $A
			}
			route / web
		}
	}
	handle /gateway/two/* {
		uri strip_prefix /gateway/two
		rgate {
			stats off
			cache 30s
			backend web {
				dial $B
			}
			route / web
		}
	}
	handle {
		rgate {
			stats off
			route /users/:id web {
				transform {
					request {
						headers {
							set X-Id {http.rgate.param.id}
						}
						path /users
					}
				}
				cache 30s
			}
			backend web {
				dial $A
			}
		}
	}
}
http://:$OTHER {
	rgate_cache 30s
	reverse_proxy $B
}
`
	config = strings.NewReplacer("$A", "$$", "$B", "$!").Replace(config)
	config = strings.NewReplacer("$$DMIN", "$ADMIN").Replace(config)
	config = strings.NewReplacer("$$", a.dial(), "$!", b.dial(), "$OTHER", fmt.Sprint(other)).Replace(config)
	g := launchSyntax(t, "Caddyfile", config)

	want := func(target, body string) {
		t.Helper()
		if got := g.get(t, target); got.body != body {
			t.Errorf("%s: got %d %q, want %q", target, got.status, got.body, body)
		}
	}
	pairs := func(name string) map[string]string {
		return map[string]string{
			"/" + name + "/a/x": "a /x ", "/" + name + "/b/x": "b /x ",
			"/" + name + "/front/1": "a /index.php /" + name + "/front/1", "/" + name + "/front/2": "a /index.php /" + name + "/front/2",
			"/" + name + "/moved/1": "a /users 1", "/" + name + "/moved/2": "a /users 2",
		}
	}
	for range 2 { // first stored, then served from the store
		for target, body := range pairs("cache") {
			want(target, body)
		}
		for target, body := range pairs("fallback") {
			want(target, body)
		}
		want("/gateway/one/x", "a /x ")
		want("/gateway/two/x", "b /x ")
		want("/users/1", "a /users 1")
		want("/users/2", "a /users 2")
	}
	if got := g.get(t, "/users/1"); !strings.Contains(got.header.Get("Cache-Status"), "hit") {
		t.Errorf("nothing was stored: %v", got.header)
	}

	// After strip_prefix, two client URLs have the same upstream path but separate cache
	// entries.
	want("/cache/admin/report", "a /report ")
	if got := g.get(t, "/cache/open/report"); strings.Contains(got.header.Get("Cache-Status"), "hit") {
		t.Errorf("/cache/open/report gets the stored response of /cache/admin/report")
	}

	// Concurrent requests are coalesced only for the same backend.
	type pair struct{ target, want string }
	results := make(chan string, 16)
	var arrived atomic.Int32
	all := make(chan struct{})
	hold := func() { // until all requests are in flight, which are not shared
		if int(arrived.Add(1)) == len(pairs("coalesce")) {
			close(all)
		}
		select {
		case <-all:
		case <-time.After(testkit.Patience):
			t.Error("a request was shared, or did not arrive")
		}
	}
	a.hold, b.hold = hold, hold
	for target, body := range pairs("coalesce") {
		go func(p pair) {
			got, err := do(g.client, g.request(t, http.MethodGet, p.target+"?hold", ""))
			if err != nil || got.body != p.want {
				results <- fmt.Sprintf("%s: got %q (%v), want %q", p.target, got.body, err, p.want)
				return
			}
			results <- ""
		}(pair{target, body})
	}
	for range pairs("coalesce") {
		if problem := <-results; problem != "" {
			t.Error(problem)
		}
	}

	// Stored responses of fallbacks belong to one backend.
	a.down.Store(true)
	b.down.Store(true)
	for target, body := range pairs("fallback") {
		want(target, body)
	}
	if got := g.get(t, "/fallback/open/x"); got.status != http.StatusServiceUnavailable {
		t.Errorf("something else stands in for /fallback/open/x: %d %q", got.status, got.body)
	}
	a.down.Store(false)
	b.down.Store(false)

	// Another server of the same configuration has separate entries, regardless of Host.
	request := g.request(t, http.MethodGet, "/cache/a/x", "")
	request.URL.Host = fmt.Sprintf("127.0.0.1:%d", other)
	request.Host = g.address()
	if got, err := do(g.client, request); err != nil || got.body != "b /cache/a/x " {
		t.Errorf("the other address: got %q (%v)", got.body, err)
	}

	// Purging and invalidation use the URL that the client requested.
	for _, target := range []string{"/users/1", "/cache/moved/1", "/cache/a/x"} {
		body, _ := json.Marshal(map[string]string{"url": g.url(target)})
		response, err := http.Post(g.adminURL("/rgate/cache/purge"), "application/json", strings.NewReader(string(body)))
		must(t, "purging", err)
		text, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if strings.Contains(string(text), `"purged":0`) || !strings.Contains(string(text), "purged") {
			t.Errorf("purging %s: %s", target, text)
		}
		if got := g.get(t, target); strings.Contains(got.header.Get("Cache-Status"), "hit") {
			t.Errorf("%s is still stored", target)
		}
		g.ask(t, http.MethodPost, target, "")
		if got := g.get(t, target); strings.Contains(got.header.Get("Cache-Status"), "hit") {
			t.Errorf("%s is still stored after a POST", target)
		}
	}

	// A reload of the same configuration keeps the stored responses.
	for _, target := range []string{"/cache/a/x", "/cache/b/x", "/users/1"} {
		g.get(t, target)
	}
	g.write(t, "# reloaded\n"+config)
	g.reload(t)
	want("/cache/a/x", "a /x ")
	want("/cache/b/x", "b /x ")
	for _, target := range []string{"/cache/a/x", "/users/1"} {
		if got := g.get(t, target); !strings.Contains(got.header.Get("Cache-Status"), "hit") {
			t.Errorf("%s is gone after a reload: %v", target, got.header)
		}
	}
}

// Backend directives that would never run are rejected, such as those before blocks with
// their own reverse_proxy.
func TestD17DirectivesThatMissRequestsAreRefused(t *testing.T) {
	t.Parallel()
	directives := map[string]string{
		"rgate_transform": "rgate_transform {\nresponse {\nheaders {\ndelete X-Secret\n}\n}\n}", "rgate_cache": "rgate_cache 30s",
		"rgate_fallback": "rgate_fallback {\nresponse later 503\n}", "rgate_coalesce": "rgate_coalesce",
		"rgate_concurrency": "rgate_concurrency 5", "rgate_circuit_breaker": "rgate_circuit_breaker 5 60s",
	}
	const proxy = "reverse_proxy 127.0.0.1:9\n"
	all := ""
	for _, directive := range directives {
		all += directive + "\n"
	}
	refused := map[string]string{
		"handle": "%s\nhandle /a/* {\n" + proxy + "}", "handle_path": "%s\nhandle_path /a/* {\n" + proxy + "}",
		"route": "%s\nroute {\n" + proxy + "}", "invoke": "%s\ninvoke /a/* x",
		"before others": "%s\nhandle /a {\n" + proxy + "}\n" + proxy, "a block that responds": "%s\nhandle {\nrespond fine\n}",
		"a gateway": "%s\nhandle {\nrgate {\nbackend a {\ndial 127.0.0.1:9\n}\nroute / a\n}\n}",
	}
	validate := func(body string) error {
		_, err := adaptAndValidate(t, "{\nadmin off\nauto_https off\n}\n&(x) {\n"+proxy+"}\nhttp://a.test:$PORT {\n"+body+"\n}\nhttp://b.test:$PORT {\n"+proxy+"}\n")
		return err
	}
	for what, body := range refused {
		for name, directive := range directives {
			if what != "handle" && name != "rgate_transform" && name != "rgate_cache" {
				continue // all six directives share one check
			}
			if err := validate(strings.ReplaceAll(body, "%s", directive)); err == nil || !strings.Contains(err.Error(), name+" does not receive requests") {
				t.Errorf("%s with %s: %v", name, what, err)
			}
		}
	}
	for what, body := range map[string]string{
		"alone": "%s\n" + proxy, "in the block": "handle /a/* {\n%s\n" + proxy + "}\nhandle {\n" + proxy + "}",
		"in handle_path": "handle_path /a/* {\n%s\n" + proxy + "}", "in route": "route {\n%s\n" + proxy + "}",
		"health": "%s\nhandle /health {\nrespond fine\n}\n" + proxy, "rewrites": "uri strip_prefix /x\nrewrite /y /z\n%s\n" + proxy,
		"forward_auth": "%s\nhandle /admin/* {\nforward_auth 127.0.0.1:9 {\nuri /x\n}\n}\n" + proxy, "php": "%s\nphp_fastcgi 127.0.0.1:9",
	} {
		if err := validate(strings.ReplaceAll(body, "%s", all)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := validate("rgate_cache 30s\nrgate {\nbackend a {\ndial 127.0.0.1:9\n}\nroute / a {\nip_filter 10.0.0.0/8\n}\n}"); err == nil || !strings.Contains(err.Error(), "would respond before rgate_ip_filter can reject requests") {
		t.Errorf("a cache before a gateway that refuses: %v", err)
	}
}

// adaptAndValidate runs `rgate validate` on a Caddyfile.
func adaptAndValidate(t testing.TB, config string) (string, error) {
	t.Helper()
	folder := t.TempDir()
	file := folder + "/Caddyfile"
	config = strings.ReplaceAll(config, "$PORT", fmt.Sprint(freePort(t)))
	must(t, "writing the configuration", os.WriteFile(file, []byte(config), 0o600))
	output, err := rgateCommand(t, folder, nil, "validate", "--config", file, "--adapter", "caddyfile").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, output)
	}
	return string(output), err
}
