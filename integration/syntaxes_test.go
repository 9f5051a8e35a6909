package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

// The same gateway in each of the three syntaxes.
const (
	inYAML = `listen: ":$PORT"
admin: localhost:$ADMIN
default_response:
  body: "This is not reachable"
  status_code: 403
stats: {path: /figures}
routes:
  - path_prefix: /api/payment
    backend: payment
  - path_prefix: /api
    match: segment
    methods: [GET]
    strip_prefix: true
    backend: orders
backends:
  - name: payment
    match_labels: [app_name=$APP, env=production]
    port: 8081
    lb_policy: round_robin
    retries: 1
    timeouts: {dial: 1s, first_byte: 1s}
  - name: orders
    match_labels: {app_name: $APP, env: production}
    port: 8080
    proxy: {headers: {request: {set: {X-From: [rgate]}}}}
`
	inCaddyfile = `{
	admin localhost:$ADMIN
}
:$PORT {
	rgate {
		default_response "This is not reachable" 403
		stats /figures
		backend payment {
			match_labels app_name=$APP env=production
			port 8081
			lb_policy round_robin
			retries 1
			timeouts {
				dial 1s
				first_byte 1s
			}
		}
		backend orders {
			match_labels app_name=$APP env=production
			port 8080
			proxy {
				header_up X-From rgate
			}
		}
		route /api/payment payment
		route /api orders {
			match segment
			methods GET
			strip_prefix
		}
	}
}
`
	inJSON = `{
	"admin": {"listen": "localhost:$ADMIN"},
	"apps": {"http": {"servers": {"gateway": {
		"listen": [":$PORT"],
		"routes": [{"handle": [{
			"handler": "rgate",
			"default_response": {"body": "This is not reachable", "status_code": 403},
			"stats": {"path": "/figures"},
			"routes": [
				{"path_prefix": "/api/payment", "backend": "payment"},
				{"path_prefix": "/api", "match": "segment", "methods": ["GET"], "strip_prefix": true, "backend": "orders"}
			],
			"backends": [
				{
					"name": "payment",
					"match_labels": {"app_name": "$APP", "env": "production"},
					"port": 8081,
					"lb_policy": {"policy": "round_robin"},
					"retries": 1,
					"timeouts": {"dial": "1s", "first_byte": "1s"}
				},
				{
					"name": "orders",
					"match_labels": {"app_name": "$APP", "env": "production"},
					"port": 8080,
					"proxy": {"headers": {"request": {"set": {"X-From": ["rgate"]}}}}
				}
			]
		}]}]
	}}}}
}
`
)

func TestThreeSyntaxesMeanTheSame(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{env: []string{"PORT=8080,8081"}})
	const byHand = "    proxy: {headers: {request: {set: {X-From: [rgate]}}}}\n" // not supported by `rgate caddyfile`
	printed := rgate(t, nil, "caddyfile", "-c", writeFile(t, "rgate.yaml", strings.NewReplacer("$PORT", "1111", "$ADMIN", "2222").Replace(strings.Replace(inYAML, byHand, "", 1))))
	if printed.code != 0 {
		t.Fatalf("printing the YAML as a Caddyfile: %s", printed.stderr)
	}
	const madeCaddyfile = "Caddyfile by rgate caddyfile"
	gateways := map[string]*gateway{
		"YAML by rgate -c":      launch(t, "rgate.yaml", inYAML, nil, "-c", "$FILE"),
		"YAML by rgate run":     launch(t, "rgate.yaml", inYAML, nil, "run", "--config", "$FILE"),
		"Caddyfile":             launch(t, "Caddyfile", inCaddyfile, nil, "run", "--config", "$FILE"),
		"JSON":                  launch(t, "gateway.json", inJSON, nil, "run", "--config", "$FILE"),
		"Caddyfile by rgate -c": launch(t, "Caddyfile", inCaddyfile, nil, "-c", "$FILE"),
		madeCaddyfile:           launch(t, "Caddyfile", strings.NewReplacer("1111", "$PORT", "2222", "$ADMIN").Replace(printed.stdout), nil, "run", "--config", "$FILE"),
	}
	for syntax, g := range gateways {
		g.await(t, "payment", 1)
		g.await(t, "orders", 1)
		for _, tc := range []struct{ method, target, want string }{
			{"GET", "/api/payment/7?a=%20", "200 GET /api/payment/7?a=%20 at 8081"},
			{"POST", "/api/paymentX", "200 POST /api/paymentX at 8081"},
			{"GET", "/api", "200 GET / at 8080 from rgate"},
			{"GET", "/api/orders", "200 GET /orders at 8080 from rgate"},
			{"POST", "/api/orders", "405 Method Not Allowed\n"},
			{"GET", "/apiX", "403 This is not reachable"},
			{"GET", "/stats", "403 This is not reachable"},
			{"GET", "/api/payment?status=418", "418"},
			{"GET", "/api/payment?delay=1m", "504 Gateway Timeout\n"},
			{"GET", "/api/payment?drop=1", "503 Service Unavailable\n"},
		} {
			if syntax == madeCaddyfile {
				tc.want = strings.TrimSuffix(tc.want, " from rgate")
			}
			if got := outline(t, g.ask(t, tc.method, tc.target, "")); got != tc.want {
				t.Errorf("%s: %s %s: got %q, want %q", syntax, tc.method, tc.target, got, tc.want)
			}
		}
		got := g.ask(t, "GET", "/figures?by=route", "").body
		for _, want := range []string{`{"requests_count":{"success":4,"error":6}`, `"/api/payment":{`, `"GET /api":{`, `"_default":{`} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: the statistics are %s, want %s in them", syntax, got, want)
			}
		}
	}
}

// outline returns the compared parts of a response.
func outline(t *testing.T, a response) string {
	t.Helper()
	switch {
	case a.status == 200:
		e := a.echo(t)
		line := fmt.Sprintf("200 %s %s at %s", e.Method, e.RequestURI, e.Local[strings.LastIndexByte(e.Local, ':')+1:])
		if from := e.Headers.Get("X-From"); from != "" {
			line += " from " + from
		}
		return line
	case a.header.Get("X-Container") != "":
		return fmt.Sprint(a.status)
	default:
		return fmt.Sprintf("%d %s", a.status, a.body)
	}
}

// writeFile writes a temporary file with $APP replaced, and returns its path.
func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, "writing "+name, os.WriteFile(path, []byte(strings.ReplaceAll(content, "$APP", appOf(t))), 0o600))
	return path
}

func TestPlaceholders(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{})
	g := launch(t, "Caddyfile", `{
	admin localhost:$ADMIN
}
:$PORT {
	log {
		output file $DIR/access.log
	}
	log_append route {http.rgate.route}
	log_append backend {http.rgate.backend}
	log_append container {http.rgate.container}
	header {
		>X-Route {http.rgate.route}
		>X-Backend {http.rgate.backend}
		>X-Tried {http.rgate.container}
	}
	rgate {
		backend web {
			match_labels app_name=$APP
		}
		backend none {
			match_labels app_name=$APP-none
		}
		route /web web {
			name pages
			header >X-Inner {http.rgate.container}
		}
		route /none none
	}
}
`, nil, "run", "--config", "$FILE")
	g.await(t, "web", 1)
	type said struct{ Route, Backend, Container string }
	wants := []said{{"pages", "web", web.name}, {"/none", "none", ""}}
	for i, target := range []string{"/web", "/none"} {
		header := g.get(t, target).header
		if got := (said{header.Get("X-Route"), header.Get("X-Backend"), header.Get("X-Tried")}); got != wants[i] {
			t.Errorf("%s: the headers say %+v, want %+v", target, got, wants[i])
		}
	}
	if got := g.get(t, "/web").header.Get("X-Inner"); got != web.name {
		t.Errorf("a route's own header says %q, want %q", got, web.name)
	}
	testkit.Eventually(t, "three lines are in the access log", func() bool {
		log, _ := os.ReadFile(filepath.Join(filepath.Dir(g.file), "access.log"))
		return strings.Count(string(log), "\n") == 3
	})
	log, err := os.Open(filepath.Join(filepath.Dir(g.file), "access.log"))
	must(t, "opening the access log", err)
	defer log.Close()
	lines := bufio.NewScanner(log)
	for _, want := range append(wants, wants[0]) {
		var got said
		lines.Scan()
		must(t, "reading the access log", json.Unmarshal(lines.Bytes(), &got))
		if got != want {
			t.Errorf("the access log says %+v, want %+v", got, want)
		}
	}
}
