package integration

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// Error responses such as 413 and 405 have CORS headers, including those of a route with
// its own cors.
func TestD11EveryResponseNamesTheOriginThatMayReadIt(t *testing.T) {
	t.Parallel()
	const origin = "https://app.example.com"
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, "listening", err)
	t.Cleanup(func() { _ = silent.Close() })
	nonsense, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, "listening", err)
	t.Cleanup(func() { _ = nonsense.Close() })
	go func() {
		for {
			conn, err := nonsense.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "nonsense\r\n\r\n")
			_ = conn.Close()
		}
	}()
	policies := `security: {max_body: 1KB, max_url: 200B, max_header: 2KB}, cors: {allowed_origins: ["` + origin + `"]}`
	routes := `
  - {path_prefix: $/echo, backend: b$WITH}
  - {path_prefix: $/get, methods: [GET], backend: b$WITH}
  - {path_prefix: $/key, backend: b, api_key: {keys: [{name: a, sha256: "` + hashOfKey("k") + `"}]}$WITH}
  - {path_prefix: $/limit, backend: b, rate_limit: {requests: 1, window: 1h, cost: "json"}$WITH}
  - {path_prefix: $/down, backend: down$WITH}
  - {path_prefix: $/silent, backend: silent$WITH}
  - {path_prefix: $/nonsense, backend: nonsense$WITH}
`
	routes = strings.Replace(routes, `, cost: "json"`, "", 1)
	backends := `
backends:
  - {name: b, dial: ["` + startEcho(t) + `"]}
  - {name: down, dial: ["127.0.0.1:1"]}
  - {name: silent, dial: ["` + silent.Addr().String() + `"], timeouts: {first_byte: 100ms}}
  - {name: nonsense, dial: ["` + nonsense.Addr().String() + `"]}
`
	whole := startGateway(t, strings.ReplaceAll(policies, ", cors:", "\ncors:")+"\nroutes:"+strings.NewReplacer("$WITH", "", "$", "").Replace(routes)+backends)
	own := startGateway(t, "routes:"+strings.NewReplacer("$WITH", ", "+policies, "$", "").Replace(routes)+backends)
	for what, g := range map[string]*gateway{"on the gateway": whole, "on routes": own} {
		chunked := func(method, target, body string) response {
			request := g.request(t, method, target, body, "Origin", origin)
			request.ContentLength = -1
			got, err := do(g.client, request)
			must(t, "sending chunks", err)
			return got
		}
		ask := func(method, target, body string, headers ...string) response {
			return g.ask(t, method, target, body, append(headers, "Origin", origin)...)
		}
		large := strings.Repeat("x", 4000)
		for name, test := range map[string]struct {
			got  response
			want int
		}{
			"too large":              {ask("POST", "/echo", large), 413},
			"too large, in chunks":   {chunked("POST", "/echo", large), 413},
			"too long":               {ask("GET", "/echo?"+large[:300], ""), 414},
			"too large a header":     {ask("GET", "/echo", "", "X-Large", large), 431},
			"another method":         {ask("POST", "/get", ""), 405},
			"an ambiguous path":      {ask("GET", "/echo/..%2fkey", ""), 400},
			"no key":                 {ask("GET", "/key", ""), 401},
			"the first":              {ask("GET", "/limit", ""), 200},
			"above the limit":        {ask("GET", "/limit", ""), 429},
			"a backend that is down": {ask("GET", "/down", ""), 503},
			"a silent backend":       {ask("GET", "/silent", ""), 504},
			"nonsense":               {ask("GET", "/nonsense", ""), 502},
			"a preflight":            {ask("OPTIONS", "/echo", "", "Access-Control-Request-Method", "PUT"), 204},
		} {
			if test.got.status != test.want || test.got.header.Get("Access-Control-Allow-Origin") != origin {
				t.Errorf("%s, %s: got %d with %v, want %d for %s", what, name, test.got.status, test.got.header, test.want, origin)
			}
			if test.got.status != http.StatusNoContent && test.got.header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s, %s: without the fields of security: %v", what, name, test.got.header)
			}
		}
		if got := g.ask(t, "POST", "/echo", large, "Origin", "https://evil.example"); got.status != 413 || got.header["Access-Control-Allow-Origin"] != nil {
			t.Errorf("%s: another origin gets %d with %v", what, got.status, got.header)
		}
	}
	if got := whole.ask(t, "GET", "/nowhere", "", "Origin", origin); got.status != 404 || got.header.Get("Access-Control-Allow-Origin") != origin {
		t.Errorf("the default response: got %d with %v", got.status, got.header)
	}

	site := launch(t, "Caddyfile", "{\n\tadmin localhost:$ADMIN\n}\n:$PORT {\n\trgate_security {\n\t\tmax_body 1KB\n\t}\n\trgate_cors "+origin+"\n\trequest_body {\n\t\tmax_size 2KB\n\t}\n\trespond ok\n}\n",
		nil, "run", "--config", "$FILE")
	if got := site.ask(t, "POST", "/", strings.Repeat("x", 4000), "Origin", origin); got.status != 413 || got.header.Get("Access-Control-Allow-Origin") != origin {
		t.Errorf("in a site: got %d with %v", got.status, got.header)
	}
}

// The origin null must not be allowed with credentials: any page can send it from a
// sandboxed frame.
func TestD13TheOriginNullWithCredentialsIsRefused(t *testing.T) {
	t.Parallel()
	for options, right := range map[string]bool{
		`allowed_origins: ["null"], allow_credentials: true`:                       false,
		`allowed_origins: ["https://a.example", "null"], allow_credentials: true`:  false,
		`allowed_origins: ["~null|https://a\\.example"], allow_credentials: true`:  false,
		`allowed_origins: ["null"]`:                                                true,
		`allowed_origins: ["~https://a\\.example|null"], allow_credentials: false`: true,
		`allowed_origins: ["https://null.example"], allow_credentials: true`:       true,
	} {
		file := writeFile(t, "rgate.yaml", "routes:\n- {path_prefix: /, backend: b}\ncors: {"+options+"}\nbackends: [{name: b, dial: [\"127.0.0.1:1\"]}]\n")
		done := rgate(t, nil, "validate", "-c", file, "--adapter", "rgate")
		if (done.code == 0) != right || !right && !strings.Contains(done.stderr, "rgate.yaml:3: allow_credentials and allowed_origins") {
			t.Errorf("%s: exit code %d, %s", options, done.code, done.stderr)
		}
	}
}
