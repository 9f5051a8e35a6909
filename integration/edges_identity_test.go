package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Identity headers of clients are removed on all paths of a site, including paths that
// rgate does not handle.
func TestD16IdentityIsStrippedInTheWholeSite(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%q %q", r.Header["X-User-Id"], r.Header["X-Consumer-Username"])
	}))
	t.Cleanup(server.Close)
	backend := server.Listener.Addr().String()
	key := "rgate_api_key /private* {\n\t\tkeys alice " + hashOfKey("secret") + "\n\t}"
	proxy := "reverse_proxy " + backend
	sites := map[string]string{
		"beside":  key + "\n\t" + proxy,
		"handle":  "handle /private* {\n\t\trgate_require\n\t\t" + proxy + "\n\t}\n\thandle {\n\t\t" + proxy + "\n\t}",
		"path":    "handle_path /private/* {\n\t\t" + key + "\n\t\t" + proxy + "\n\t}\n\thandle_path /* {\n\t\t" + proxy + "\n\t}",
		"route":   "route {\n\t\t" + proxy + " /public*\n\t\t" + key + "\n\t\t" + proxy + "\n\t}",
		"rewrite": "rewrite /public* /elsewhere{uri}\n\t" + key + "\n\t" + proxy,
		"invoke":  "route /private* {\n\t\tinvoke auth\n\t\t" + proxy + "\n\t}\n\t" + proxy,
		"gateway": "route {\n\t\t" + proxy + " /public*\n\t\trgate {\n\t\t\tbackend b {\n\t\t\t\tdial " + backend + "\n\t\t\t}\n\t\t\troute / b {\n\t\t\t\tapi_key {\n\t\t\t\t\tkeys alice " + hashOfKey("secret") + "\n\t\t\t\t}\n\t\t\t}\n\t\t}\n\t}",
	}
	sites["route"] = strings.Replace(sites["route"], proxy+" /public*", "reverse_proxy /public* "+backend, 1)
	sites["gateway"] = strings.Replace(sites["gateway"], proxy+" /public*", "reverse_proxy /public* "+backend, 1)
	var config strings.Builder
	config.WriteString("{\n\tadmin localhost:$ADMIN\n\tauto_https off\n}\n&(auth) {\n\t" + key + "\n}\n")
	for name, site := range sites {
		fmt.Fprintf(&config, "http://%s.example:$PORT {\n\t%s\n}\n", name, site)
	}
	g := launch(t, "Caddyfile", config.String(), nil, "run", "--config", "$FILE")
	// A named route is shared by all sites of its server, so these sites run on a
	// separate server.
	kept := strings.Replace(sites["beside"], "\n\t}", "\n\t\tkeep_identity\n\t}", 1)
	others := launch(t, "Caddyfile", fmt.Sprintf("{\n\tadmin localhost:$ADMIN\n\tauto_https off\n}\nhttp://kept.example:$PORT {\n\t%s\n}\nhttp://open.example:$PORT {\n\t%s\n}\nhttp://beside.example:$PORT {\n\t%s\n}\n",
		kept, proxy, sites["beside"]), nil, "run", "--config", "$FILE")
	// Non-terminal routes of a server form a single site. Authentication providers are
	// independent of each other and run in random order.
	whole := launch(t, "gateway.json", `{"admin": {"listen": "localhost:$ADMIN"}, "apps": {"http": {"servers": {"all": {"listen": [":$PORT"], "routes": [
		{"match": [{"path": ["/public*"]}], "handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": "`+backend+`"}]}]},
		{"handle": [{"handler": "authentication", "providers": {
			"http_basic": {"accounts": [{"username": "bob", "password": "`+passwordHash(t, "password")+`"}]},
			"rgate_api_key": {"keys": [{"name": "alice", "sha256": "`+hashOfKey("secret")+`"}]}
		}}, {"handler": "reverse_proxy", "upstreams": [{"dial": "`+backend+`"}]}]}
	]}}}}}`, nil, "run", "--config", "$FILE")

	seen := func(g *gateway, host, path string) string {
		t.Helper()
		request := mustRequest(t, g.url(path))
		request.Host = host
		request.Header.Set("X-User-ID", "root")
		request.Header.Set("X-Consumer-Username", "root")
		request.SetBasicAuth("bob", "password")
		got, err := do(g.client, request)
		must(t, "GET "+path+" of "+host, err)
		if got.status != http.StatusOK {
			t.Errorf("GET %s of %s: got %d", path, host, got.status)
		}
		return got.body
	}
	for name := range sites {
		if got := seen(g, name+".example", "/public/x"); got != "[] []" {
			t.Errorf("%s: the backend sees the user and the consumer %s", name, got)
		}
	}
	for name, want := range map[string]string{"kept": `["root"] ["root"]`, "open": `["root"] ["root"]`, "beside": "[] []"} {
		if got := seen(others, name+".example", "/public/x"); got != want {
			t.Errorf("%s: the backend sees the user and the consumer %s, want %s", name, got, want)
		}
	}
	for range 20 {
		for _, path := range []string{"/public/x", "/private/x"} {
			if got := seen(whole, "any.example", path); strings.Contains(got, "root") {
				t.Fatalf("providers: the backend sees %s", got)
			}
		}
	}
	if warned := strings.Count(g.output.String(), "set keep_identity to forward them"); warned < 5 {
		t.Errorf("%d sites are warned of", warned)
	}
}
