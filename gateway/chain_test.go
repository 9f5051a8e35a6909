package gateway

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
	"golang.org/x/crypto/bcrypt"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/policy"
)

// named is a handler that does nothing. Its text form is its name. A suffix after a slash
// distinguishes handlers of the same name, and a minus in front means disabled.
type named struct {
	name, id string
	off      bool
}

func (n *named) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: caddy.ModuleID("http.handlers." + n.name)}
}
func (n *named) Off() bool { return n.off }
func (n *named) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(w, r)
}

// levelsOf parses levels, which are separated by bars. The handlers of a subroute
// follow it in parentheses, separated by commas.
func levelsOf(text string) (levels [][]loadedHandler) {
	for level := range strings.SplitSeq(text, "|") {
		var handlers []loadedHandler
		for word := range strings.FieldsSeq(level) {
			n := new(named)
			word, n.off = strings.CutPrefix(word, "-")
			word, inner, _ := strings.Cut(strings.TrimSuffix(word, ")"), "(")
			n.name, n.id, _ = strings.Cut(word, "/")
			options := map[string]any{"handler": n.name}
			if inner != "" {
				var routes []any
				for name := range strings.SplitSeq(inner, ",") {
					routes = append(routes, map[string]any{"handle": []any{map[string]string{"handler": name}}})
				}
				options["routes"] = routes
			}
			handlers = append(handlers, loadedHandler{n, traitsIn(caddy.Context{}, caddyconfig.JSON(options, nil))})
		}
		levels = append(levels, handlers)
	}
	return levels
}

func TestCompose(t *testing.T) {
	var now order
	for _, tc := range []struct{ what, levels, want string }{
		{"nothing", "||", ""},
		{"one level keeps its order", "headers rgate_cors rewrite rgate_jwt vars", "headers rgate_cors rewrite rgate_jwt vars"},
		{"policies have a fixed order", "rgate_rate_limit rgate_jwt rgate_cors", "rgate_cors rgate_jwt rgate_rate_limit"},
		{"also across levels", "rgate_rate_limit | rgate_jwt | rgate_cors", "rgate_cors rgate_jwt rgate_rate_limit"},
		{"Caddy's authentication is one", "rgate_rate_limit | authentication", "authentication rgate_rate_limit"},
		{"the inner one wins", "rgate_cors/a | rgate_cors/b", "rgate_cors/b"},
		{"over all of the outer ones", "rgate_rate_limit/a rgate_rate_limit/b | rgate_rate_limit/c", "rgate_rate_limit/c"},
		{"several on one level stay", "rgate_jwt | rgate_rate_limit/a rgate_rate_limit/b", "rgate_jwt rgate_rate_limit/a rgate_rate_limit/b"},
		{"the innermost of three", "rgate_jwt/a | rgate_jwt/b | rgate_jwt/c", "rgate_jwt/c"},
		{"turned off inside", "rgate_jwt/a rgate_cors | -rgate_jwt/b", "rgate_cors"},
		{"turned on again", "rgate_jwt/a | -rgate_jwt/b | rgate_jwt/c", "rgate_jwt/c"},
		{"turned off for good", "rgate_jwt/a | rgate_jwt/b | -rgate_jwt/c", ""},
		{"quotas add up", "rgate_quota/a | rgate_quota/b | rgate_quota/c", "rgate_quota/a rgate_quota/b rgate_quota/c"},
		{"until they are turned off", "rgate_quota/a | -rgate_quota/b | rgate_quota/c", "rgate_quota/c"},
		{"other handlers add up", "headers/a | headers/b | headers/c", "headers/a headers/b headers/c"},
		{"a route responds after the authentication of the gateway", "rgate_jwt | static_response", "rgate_jwt static_response"},
		{"even if its own policies come first", "rgate_jwt | static_response rgate_cors", "rgate_cors rgate_jwt static_response"},
		{"even if it turns another one off", "rgate_jwt rgate_rate_limit | rewrite -rgate_rate_limit", "rgate_jwt rewrite"},
		{"what is out here goes first", "rewrite | rgate_jwt", "rewrite rgate_jwt"},
		{"and after what stands before it", "rgate_jwt rewrite | rgate_cors rgate_rate_limit", "rgate_cors rgate_jwt rewrite rgate_rate_limit"},
		{"nothing responds before authentication", "static_response rgate_api_key", "rgate_api_key static_response"},
		{"nor before that of an inner level", "file_server | | rgate_ip_filter | rgate_require", "rgate_ip_filter rgate_require file_server"},
		{"nor before that of the backend", "| static_response | rgate_jwt", "rgate_jwt static_response"},
		{"nor what is in a subroute", "subroute(vars,respond) | rgate_jwt", "rgate_jwt subroute"},
		{"what never responds keeps its place", "vars map headers request_body tracing log_append rewrite encode subroute(vars) rgate_jwt", "vars map headers request_body tracing log_append rewrite encode subroute rgate_jwt"},
		{"also behind what may", "static_response | headers rgate_jwt", "headers rgate_jwt static_response"},
		{"unless that may change the request", "headers/a reverse_proxy headers/b | rgate_jwt", "headers/a rgate_jwt reverse_proxy headers/b"},
		{"authentication for some requests comes before responses", "static_response vars | subroute(rgate_jwt) | subroute(rgate_api_key,error)", "vars subroute subroute static_response"},
		{"stored responses come behind all other handlers", "rgate_cache rgate_rate_limit | reverse_proxy/a | reverse_proxy/b", "rgate_rate_limit reverse_proxy/a reverse_proxy/b rgate_cache"},
		{"also those around the backend", "rgate_fallback rgate_coalesce rgate_transform | | static_response rgate_concurrency", "rgate_transform static_response rgate_fallback rgate_coalesce rgate_concurrency"},
		{"also those for some requests", "subroute(rgate_cache) rgate_concurrency | static_response | rgate_jwt rgate_transform", "rgate_jwt rgate_transform static_response subroute rgate_concurrency"},
		{"outer before inner", "rgate_jwt vars/a | vars/b rgate_cors | vars/c", "rgate_cors rgate_jwt vars/a vars/b vars/c"},
	} {
		var got []string
		for _, c := range now.arrange(levelsOf(tc.levels)...) {
			n := c.handler.(*named)
			got = append(got, strings.TrimSuffix(n.name+"/"+n.id, "/"))
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s: %s\ngot  %v\nwant %s", tc.what, tc.levels, got, tc.want)
		}
	}
}

// The option legacy restores each of the two orders independently.
func TestComposeWithLegacyOrder(t *testing.T) {
	const levels = "static_response rgate_cache | rgate_jwt headers | file_server"
	for before, want := range map[order]string{
		{}:                    "rgate_jwt static_response headers file_server rgate_cache",
		{handlersFirst: true}: "static_response rgate_jwt headers file_server rgate_cache",
		{standInsFirst: true}: "rgate_jwt static_response rgate_cache headers file_server",
		{true, true}:          "static_response rgate_jwt rgate_cache headers file_server",
	} {
		var got []string
		for _, c := range before.arrange(levelsOf(levels)...) {
			got = append(got, handlerName(c.handler))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%+v: got %v, want %s", before, got, want)
		}
	}
}

// No order is safe if one handler contains both a cache and authentication.
func TestConflictingTraits(t *testing.T) {
	for levels, safe := range map[string]bool{
		"subroute(rgate_jwt,rgate_cache)":                                            true,
		"subroute(rgate_jwt,rgate_cache) | vars rgate_api_key":                       true,
		"subroute(rgate_jwt,rgate_cache,file_server)":                                true,
		"subroute(rgate_jwt,rgate_cache) | static_response":                          false,
		"static_response | subroute(rgate_jwt,rgate_cache)":                          false,
		"subroute(rgate_jwt,rgate_cache) | subroute(rgate_ip_filter,rgate_fallback)": false,
	} {
		if err := checkOrder(levelsOf(levels)); (err == nil) != safe {
			t.Errorf("%s: %v", levels, err)
		}
	}
}

// Only the gateway sets the identity fields that a backend receives.
func TestOnlyTheGatewaySetsIdentityFields(t *testing.T) {
	dial, received := headersBackend(t)
	config := func(more string) string {
		return `{"routes": [{"path_prefix": "/", "backend": "web"}], "backends": [{"name": "web", "dial": ["` + dial + `"]}]` + more + `}`
	}
	spoofed := []string{
		"X-User-ID", "root", "x-consumer-username", "root", "X-Consumer-Anything", "root", "X-Gateway-Service", "bank",
		"X_User_ID", "root", "X_Consumer-Scopes", "all", "X-Other", "kept",
	}
	get(t, "GET", serve(t, start(t, config("")), new(caddyhttp.Server)), spoofed...)
	header := <-received
	if header.Get("X-Gateway-Service") != "web" || header.Get("X-Other") != "kept" {
		t.Errorf("the backend got %v", header)
	}
	for name := range header {
		if strings.Contains(strings.ToLower(strings.ReplaceAll(name, "_", "-")), "x-user") || strings.Contains(strings.ToLower(name), "consumer") {
			t.Errorf("the backend got %s: %v", name, header[name])
		}
	}
	get(t, "GET", serve(t, start(t, config(`, "trust_identity": true`)), new(caddyhttp.Server)), spoofed...)
	header = <-received
	if header.Get("X-User-Id") != "root" || header.Get("X-Consumer-Anything") != "root" || header.Get("X-Gateway-Service") != "web" {
		t.Errorf("of a trusted client, the backend got %v", header)
	}
}

// The gateway forwards the user that a Caddy handler has authenticated.
func TestUsersOfOtherHandlersAreForwarded(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	dial, received := headersBackend(t)
	url := serve(t, start(t, fmt.Sprintf(`{
		"handle": [{"handler": "authentication", "providers": {"http_basic": {"accounts": [{"username": "alice", "password": %q}]}}}],
		"routes": [{"path_prefix": "/", "backend": "web"}], "backends": [{"name": "web", "dial": [%q]}]
	}`, hash, dial)), new(caddyhttp.Server))
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("alice:secret"))
	get(t, "GET", url, "Authorization", basic, "X-User-ID", "root")
	if header := <-received; header.Get("X-User-Id") != "alice" {
		t.Errorf("the backend got %v", header)
	}
	if a := get(t, "GET", url, "X-User-ID", "alice"); a.status != http.StatusUnauthorized {
		t.Errorf("without a password: %d", a.status)
	}
}

// forwarder is a handler that forwards a request to another backend if the first one
// fails.
type forwarder struct {
	To string `json:"to"`
}

func (forwarder) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_forwarder", New: func() caddy.Module { return new(forwarder) }}
}

func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	err := next.ServeHTTP(w, r)
	if failure := new(failure.Error); errors.As(err, failure) {
		known, err := policy.RequestStateOf(r).Forward(f.To, w, r)
		if !known {
			return fmt.Errorf("no backend %s", f.To)
		}
		return err
	}
	return err
}

func init() { caddy.RegisterModule(new(forwarder)) }

func TestForward(t *testing.T) {
	works, _ := testkit.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "for "+r.Header.Get("X-Gateway-Service")+" with "+r.Header.Get("X-Around"))
	})
	config := `{
		"handle": [{"handler": "test_forwarder", "to": %q}],
		"routes": [{"path_prefix": "/", "backend": "broken"}], "backends": [
			{"name": "broken", "dial": ["` + deadAddress(t) + `"]},
			{"name": "spare", "dial": ["` + works + `"], "around": [{"handler": "headers", "request": {"set": {"X-Around": ["its own"]}}}]}
		]
	}`
	for to, want := range map[string]testResponse{
		"spare": {status: http.StatusOK, body: "for spare with its own"}, "broken": {status: http.StatusServiceUnavailable}, "": {status: http.StatusInternalServerError},
	} {
		got := get(t, "GET", serve(t, start(t, fmt.Sprintf(config, to)), new(caddyhttp.Server)))
		if got.status != want.status || want.body != "" && got.body != want.body {
			t.Errorf("to %q: got %d %q, want %d %q", to, got.status, got.body, want.status, want.body)
		}
	}
}

// headersBackend starts a backend that sends the header of each request to received.
func headersBackend(t *testing.T) (dial string, received chan http.Header) {
	received = make(chan http.Header, 1)
	dial, _ = testkit.Backend(t, func(_ http.ResponseWriter, r *http.Request) { received <- r.Header })
	return dial, received
}

// scoped is a handler that records the scope in which it was provisioned.
type scoped struct{}

var scopes []string

func (scoped) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_scoped", New: func() caddy.Module { return new(scoped) }}
}

func (*scoped) Provision(ctx caddy.Context) error {
	scopes = append(scopes, strings.TrimPrefix(policy.ScopeKey(ctx), "TestPoliciesKnowTheirScope "))
	return nil
}

func (*scoped) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(w, r)
}

// The scope identifies the state that a policy keeps across reloads.
func TestPoliciesKnowTheirScope(t *testing.T) {
	caddy.RegisterModule(scoped{})
	const here = `"handle": [{"handler": "test_scoped"}]`
	start(t, `{`+here+`, "routes": [{"path_prefix": "/a", "backend": "web", `+here+`}],
		"groups": [{"path_prefix": "/v1", `+here+`, "routes": [{"path_prefix": "/b", "backend": "web", `+here+`}]}],
		"backends": [{"name": "web", "dial": ["127.0.0.1:1"], "around": [{"handler": "test_scoped"}]}]}`)
	if got := strings.Join(scopes, ", "); got != "backend web, gateway , route /a, group /v1, route /v1/b" {
		t.Errorf("the scopes are %s", got)
	}
}
