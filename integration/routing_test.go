package integration

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
)

// threeBackends are three ports of one container.
const threeBackends = `
backends:
  - {name: short, match_labels: {app_name: $APP}, port: 8080}
  - {name: middle, match_labels: {app_name: $APP}, port: 8081}
  - {name: long, match_labels: {app_name: $APP}, port: 8082}
`

func TestLongestPrefixWinsWhateverTheOrder(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{env: []string{"PORT=8080,8081,8082"}})
	routes := []string{
		"  - {path_prefix: /api, backend: short}\n",
		"  - {path_prefix: /api/payment, backend: middle}\n",
		"  - {path_prefix: /api/payment/refunds, backend: long}\n",
	}
	orders := [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}
	config := func(order [3]int) string {
		return "admin: localhost:$ADMIN\nlisten: :$PORT\nroutes:\n" + routes[order[0]] + routes[order[1]] + routes[order[2]] + threeBackends
	}
	g := startGateway(t, config(orders[0]))
	for _, order := range orders {
		g.write(t, config(order))
		g.reload(t)
		g.await(t, "long", 1)
		for target, port := range map[string]string{
			"/api":                        "8080",
			"/api/":                       "8080",
			"/apinotes":                   "8080", // a prefix of the string, not of path segments
			"/api/paymen":                 "8080",
			"/api/payment":                "8081",
			"/api/paymentX":               "8081",
			"/api/payment/refund":         "8081",
			"/api/payment/refunds":        "8082",
			"/api/payment/refunds/7?a=/b": "8082",
			"/%61pi/p%61yment/refunds":    "8082", // the decoded path is matched
		} {
			if local := g.get(t, target).echo(t).Local; !strings.HasSuffix(local, ":"+port) {
				t.Errorf("order %v: %s reached %s, want port %s", order, target, local, port)
			}
		}
		for _, target := range []string{"/", "/ap", "/API/payment", "/x/api"} {
			if got := g.get(t, target); got.status != http.StatusNotFound {
				t.Errorf("order %v: %s: got %d, want 404 as no route matches", order, target, got.status)
			}
		}
	}
}

func TestSegmentsAndStripPrefix(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{env: []string{"PORT=8080,8081,8082"}})
	g := startGateway(t, `
routes:
  - {path_prefix: /api/payment, match: segment, backend: middle}
  - {path_prefix: /strip, strip_prefix: true, backend: long}
  - {path_prefix: /read, methods: [GET], hosts: ["*.example.com"], backend: short}
`+threeBackends)
	g.await(t, "long", 1)
	for target, want := range map[string]string{
		"/api/payment":        "/api/payment",
		"/api/payment/":       "/api/payment/",
		"/api/payment/7":      "/api/payment/7",
		"/strip":              "/",
		"/strip?a=b":          "/?a=b",
		"/strip/":             "/",
		"/strip/a%2Fb/?c=%20": "/a%2Fb/?c=%20",
		"/strip//a":           "//a",
		"/stripped":           "/ped",
	} {
		if got := g.get(t, target).echo(t).RequestURI; got != want {
			t.Errorf("%s reached the backend as %s, want %s", target, got, want)
		}
	}
	if got := g.get(t, "/api/paymentX"); got.status != http.StatusNotFound {
		t.Errorf("/api/paymentX: got %d by a route that matches segments, want 404", got.status)
	}
	request := g.request(t, http.MethodPost, "/read", "")
	request.Host = "api.example.com"
	got, err := do(g.client, request)
	if err != nil || got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST /read: got %d, Allow %q (%v), want 405 and GET, HEAD", got.status, got.header.Get("Allow"), err)
	}
	if got := g.get(t, "/read"); got.status != http.StatusNotFound {
		t.Errorf("/read of another host: got %d, want 404", got.status)
	}
}

func TestTargetsReachTheBackendUnchanged(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := startGateway(t, `
routes: [{path_prefix: /api, backend: web}]
backends: [{name: web, match_labels: {app_name: $APP}}]
`)
	g.await(t, "web", 1)
	for _, target := range []string{
		"/api", "/api?", "/api/?", "/api//double//slashes/", "/api/a%2Fb", "/api/a%2fb", "/api/%61%7E%41",
		"/api/%C3%A9/%e3%81%82", "/api/a;b=c;d", "/api/a,b:c@d!e$f'g(h)*i", "/api/a+b?c+d", "/api/a%20b?c%20d",
		"/api/a/../b", "/api/./a/..", "/api/a|b", "/api/a\"b<c>d", "/api/[a]{b}",
		"/api/a^b`c", "/api/a\\b", "/api/a%5Cb", "/api/%25%32%35", "/api/%00", "/api/%0d%0a", "/api/été", "/api/a%23b",
		"/api?a=b?c=d", "/api?a=%zz", "/api?a;b", "/api?a&&b&=c", "/api?a=b%26c", "/api?/api/../x", "/api?é=\"<>|",
		"/api?a%23b", "/api?x=http://e.example/?y=z", "/api%2Fa", "/%61pi/a", "/api/*", "/api/a:80/b",
		"/api/" + strings.Repeat("long%2F/", 500),
	} {
		if got := g.rawGet(t, target).echo(t).RequestURI; got != target {
			t.Errorf("the client sent %q and the backend saw %q", target, got)
		}
	}
	if got := g.rawGet(t, "http://other.example/api/a%2Fb?c").echo(t); got.RequestURI != "/api/a%2Fb?c" || got.Host != "other.example" {
		t.Errorf("the absolute target reached the backend as %s of %s, want /api/a%%2Fb?c of other.example", got.RequestURI, got.Host)
	}
	// Some backends resolve these paths to targets outside of the route's prefix.
	for _, target := range []string{"/api/%2e%2e/a", "/api/../a", "/api/..;/a", "/api/..%2fa", `/api\..\..\a`} {
		if got := g.rawGet(t, target); got.status != http.StatusBadRequest {
			t.Errorf("%s, which may lead elsewhere: got %d, want 400", target, got.status)
		}
	}
	if got := g.rawGet(t, "/api/%zz"); got.status != http.StatusBadRequest {
		t.Errorf("/api/%%zz, which is malformed: got %d, want 400", got.status)
	}
}

func TestMethodsHeadersAndBodiesReachTheBackend(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	g := startGateway(t, `
routes: [{path_prefix: /, backend: web}]
backends: [{name: web, match_labels: {app_name: $APP}}]
`)
	g.await(t, "web", 1)
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "X-OWN"} {
		got := g.ask(t, method, "/any", "12345", "X-Own", "value", "User-Agent", "mine", "Accept-Encoding", "br").echo(t)
		if got.Method != method || got.BodyBytes != 5 || !strings.HasPrefix(got.BodySHA256, "5994471abb01112a") {
			t.Errorf("%s with 5 bytes reached the backend as %s with %d bytes", method, got.Method, got.BodyBytes)
		}
		for name, want := range map[string]string{
			"X-Own": "value", "User-Agent": "mine", "Accept-Encoding": "br",
			"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": g.address(),
		} {
			if have := got.Headers.Get(name); have != want {
				t.Errorf("%s: the backend saw %s: %q, want %q", method, name, have, want)
			}
		}
	}
	// The gateway must not add fields such as Accept-Encoding to a request.
	if got := g.rawGet(t, "/any").echo(t).Headers; got.Get("Accept-Encoding") != "" || got.Get("User-Agent") != "" {
		t.Errorf("the backend saw headers that the client did not send: %v", got)
	}
	for _, status := range []int{200, 201, 204, 301, 304, 400, 404, 418, 500, 502, 503, 599} {
		if got := g.get(t, fmt.Sprintf("/any?status=%d", status)); got.status != status {
			t.Errorf("the backend's status %d reached the client as %d", status, got.status)
		}
	}
	if got := g.get(t, "/any?status=503"); got.header.Get("Retry-After") != "" || !json.Valid([]byte(got.body)) {
		t.Errorf("a 503 of the backend itself was changed: %v %q", got.header, got.body)
	}
}

func TestDefaultResponse(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config, contentType, body string
		status                    int
	}{
		"none":      {"", "", "", 404},
		"text":      {"default_response: {body: \"This is not reachable\", status_code: 403}", "text/plain; charset=utf-8", "This is not reachable", 403},
		"as a list": {"default_response:\n  - body: \"This is not reachable\"\n  - status_code: 403", "text/plain; charset=utf-8", "This is not reachable", 403},
		"JSON":      {`default_response: {body: '{"é": 1}', status_code: 200}`, "application/json", `{"é": 1}`, 200},
		"body only": {`default_response: {body: "{http.request.host} \\n"}`, "text/plain; charset=utf-8", `{http.request.host} \n`, 404},
		"no body":   {"default_response: {status_code: 410}", "", "", 410},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t, tc.config+`
routes: [{path_prefix: /api, backend: web}]
backends: [{name: web, match_labels: {app_name: $APP}}]
`)
			for _, method := range []string{"GET", "POST", "DELETE", "OPTIONS", "HEAD"} {
				got, want := g.ask(t, method, "/elsewhere?a=b", ""), tc.body
				if method == "HEAD" {
					want = ""
				}
				if got.status != tc.status || got.body != want || got.length != int64(len(tc.body)) {
					t.Errorf("%s: got %d, %q and length %d, want %d, %q and length %d",
						method, got.status, got.body, got.length, tc.status, want, len(tc.body))
				}
				if contentType := got.header.Get("Content-Type"); contentType != tc.contentType {
					t.Errorf("%s: got Content-Type %q, want %q", method, contentType, tc.contentType)
				}
			}
		})
	}
}

func TestRequestsAreSpreadAtRandom(t *testing.T) {
	t.Parallel()
	// The random policy ignores weights.
	weights, byContainer := []string{"1", "10", "1000"}, map[string]int{}
	for _, weight := range weights {
		startContainer(t, spec{labels: map[string]string{"rgate.weight": weight}})
	}
	g := startGateway(t, `
routes: [{path_prefix: /, backend: web}]
backends: [{name: web, match_labels: {app_name: $APP}}]
`)
	g.await(t, "web", len(weights))
	const n = 1200
	switches, last := 0, ""
	for range n {
		container := g.get(t, "/").echo(t).Container
		byContainer[container]++
		if container != last {
			switches++
		}
		last = container
	}
	// Six standard deviations: fails about twice in 10⁹ runs.
	p := 1 / float64(len(weights))
	slack := 6 * math.Sqrt(n*p*(1-p))
	for container, got := range byContainer {
		if math.Abs(float64(got)-n*p) > slack {
			t.Errorf("container %s got %d of %d requests, want %.0f give or take %.0f", container, got, n, n*p, slack)
		}
	}
	// Round robin would switch containers at every request, random selection at two of
	// three.
	if want := n * (1 - p); len(byContainer) != len(weights) || math.Abs(float64(switches)-want) > slack {
		t.Errorf("%d containers were reached with %d switches, want %d and %.0f give or take %.0f",
			len(byContainer), switches, len(weights), want, slack)
	}
}
