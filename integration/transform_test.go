package integration

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
)

// transformSeen describes the request that the backend received.
type transformSeen struct {
	Method, Target, Host, Body string
	Length                     int64
	Header                     http.Header
}

// startTransformBackend starts a backend that responds with the request as JSON, with the
// status in X-Status. Special paths have other responses. It returns its address.
func startTransformBackend(t *testing.T) string {
	t.Helper()
	next := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Etag", `"v1"`)
		w.Header().Set("Server", "secret")
		status := 200
		_, _ = fmt.Sscan(r.Header.Get("X-Status"), &status)
		w.WriteHeader(status)
		if status != 204 {
			_ = json.NewEncoder(w).Encode(transformSeen{r.Method, r.RequestURI, r.Host, string(body), r.ContentLength, r.Header})
		}
	})
	mux.HandleFunc("/gzip", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, `{"a":1}`)
		_ = z.Close()
	})
	mux.HandleFunc("/text", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "plain \"text\"") })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"a":`)
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"a":`)
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for {
			if _, err := io.WriteString(w, `"and so on",`); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/early", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a>")
		w.WriteHeader(103)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{}`)
	})
	mux.HandleFunc("/sse", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for n := range 3 {
			_, _ = fmt.Fprintf(w, "data: {\"n\":%d}\n\n", n)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	})
	mux.HandleFunc("/next", func(w http.ResponseWriter, r *http.Request) {
		select {
		case next <- struct{}{}:
		case <-r.Context().Done():
		}
	})
	mux.Handle("/ws", websocket.Handler(func(conn *websocket.Conn) {
		for text := ""; websocket.Message.Receive(conn, &text) == nil; {
			_ = websocket.Message.Send(conn, text)
		}
	}))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func (a response) seen(t testing.TB) (seen transformSeen) {
	t.Helper()
	must(t, "reading what the backend saw in "+a.body, json.Unmarshal([]byte(a.body), &seen))
	return seen
}

const transformRequests = `
routes:
  - path_prefix: /api
    backend: web
    transform: {request: {headers: {set: {X-A: b}, delete: [X-C]}, body: {set: {api_version: v2}, rename: {user_data: user}}}}
  - path_prefix: /v1/users/:action
    backend: web
    transform:
      request:
        headers: {set: {Host: users.internal, X-Action: "{http.rgate.param.action}"}, rename: {X-Old: X-New}, add: {X-Many: "2"}}
        query: {set: {version: "2"}, delete: [debug], rename: {q: query}}
        path: /v2/users
        body: {rename: {user_data: user}, set: {api_version: v2, action: "{http.rgate.param.action}"}}
  - path_prefix: /files/*
    strip_prefix: true
    backend: web
    transform: {request: {path: "/store/{http.rgate.param.*}"}}
  - path_prefix: /keep
    strip_prefix: true
    backend: web
    transform: {request: {query: {set: {a: "1"}}}}
  - path_prefix: /by/:id
    backend: web
    transform: {request: {path: "/things/{http.rgate.param.id}/parts"}}
  - path_prefix: /order
    backend: web
    transform: {request: {method: PUT, body: {template: {item: "{http.request.uri.query.item}", version: 2, was: "json:{http.rgate.body.old}"}}}}
  - path_prefix: /small
    backend: web
    transform: {max_body: 16B, request: {body: {set: {a: 1}}}}
  - path_prefix: /down
    backend: half
    transform: {request: {body: {set: {a: 1}}}}
backends:
  - {name: web, dial: [$BACKEND]}
  - {name: half, dial: ["127.0.0.1:1", $BACKEND], lb_policy: first}
`

func TestTransformRequests(t *testing.T) {
	t.Parallel()
	g := startGateway(t, strings.ReplaceAll(transformRequests, "$BACKEND", startTransformBackend(t)))
	const isJSON = "application/json"
	for name, tc := range map[string]struct {
		method, target, body string
		fields               []string
		want                 transformSeen
		header               map[string]string
	}{
		"as in the design": {"POST", "/api/x%2Fy?a=%20b", `{"user_data":{"id":1}}`, []string{"X-C", "1"},
			transformSeen{Method: "POST", Target: "/api/x%2Fy?a=%20b", Body: `{"user":{"id":1},"api_version":"v2"}`}, map[string]string{"X-A": "b", "X-C": ""}},
		"v2": {"POST", "/v1/users/create?debug=1&q=a%20b&x=%2F", `{ "user_data" : {"id": 12345678901234567890} }`, []string{"X-Old", "7", "X-Many", "1"},
			transformSeen{Method: "POST", Target: "/v2/users?query=a%20b&x=%2F&version=2", Host: "users.internal", Body: `{ "user" : {"id": 12345678901234567890} ,"action":"create","api_version":"v2"}`},
			map[string]string{"X-Action": "create", "X-New": "7", "X-Old": "", "X-Many": "1"}},
		"another path, and no prefix to strip": {"GET", "/files/a%20b/c.txt?x", "", nil, transformSeen{Method: "GET", Target: "/store/a%20b/c.txt?x"}, nil},
		"another query, and a prefix to strip": {"GET", "/keep/%7Ea/b%2Fc", "", nil, transformSeen{Method: "GET", Target: "/%7Ea/b%2Fc?a=1"}, nil},
		"encoded":                              {"GET", "/by/a%3Fb%23c%25d", "", nil, transformSeen{Method: "GET", Target: "/things/a%3Fb%23c%25d/parts"}, nil},
		"a template": {"POST", "/order?item=%22%7D", `{"old":[1.0]}`, nil,
			transformSeen{Method: "PUT", Target: "/order?item=%22%7D", Body: `{"item":"\"}","version":2,"was":[1.0]}`}, nil},
		"a template without a body": {"GET", "/order?item=x", ``, nil,
			transformSeen{Method: "PUT", Target: "/order?item=x", Body: `{"item":"x","version":2,"was":null}`}, map[string]string{"Content-Type": isJSON}},
		"just small enough": {"POST", "/small", `{"b": 123456789}`, nil, transformSeen{Method: "POST", Target: "/small", Body: `{"b": 123456789,"a":1}`}, nil},
		"a second upstream": {"POST", "/down", `{"b":1}`, nil, transformSeen{Method: "POST", Target: "/down", Body: `{"b":1,"a":1}`}, nil},
	} {
		got := g.ask(t, tc.method, tc.target, tc.body, append(tc.fields, "Content-Type", isJSON)...)
		if got.status != 200 {
			t.Errorf("%s: got %d and %q", name, got.status, got.body)
			continue
		}
		seen := got.seen(t)
		for field, want := range tc.header {
			if seen.Header.Get(field) != want {
				t.Errorf("%s: the backend got %s: %q, want %q", name, field, seen.Header[field], want)
			}
		}
		if tc.want.Host == "" {
			seen.Host = ""
		}
		if want := int64(len(tc.want.Body)); seen.Length != want {
			t.Errorf("%s: the backend got the length %d, want %d", name, seen.Length, want)
		}
		if seen.Method != tc.want.Method || seen.Target != tc.want.Target || seen.Host != tc.want.Host || seen.Body != tc.want.Body {
			t.Errorf("%s: the backend saw\n%+v, want\n%+v", name, seen, tc.want)
		}
	}
	for _, target := range []string{"/files/a/../b", "/by/..", "/by/%252e%252e", "/by/.%2e", "/by/a%5Cb"} {
		if got := g.rawGet(t, target); got.status != 400 || got.body != "Bad Request\n" {
			t.Errorf("%s: got %d and %q, want 400", target, got.status, got.body)
		}
	}
}

func TestTransformRefusesRequests(t *testing.T) {
	t.Parallel()
	g := startGateway(t, strings.ReplaceAll(transformRequests, "$BACKEND", startTransformBackend(t)))
	const isJSON = "application/json"
	for name, tc := range map[string]struct {
		body   string
		fields []string
		status int
	}{
		"too large":       {`{"b": 1234567890}`, nil, 413},
		"no JSON":         {`{"b": `, nil, 400},
		"compressed":      {"\x1f\x8b", []string{"Content-Encoding", "gzip"}, 415},
		"of another type": {`{"b": 1234567890}`, []string{"Content-Type", "text/plain"}, 200},
	} {
		for _, chunked := range []bool{false, true} {
			request := g.request(t, "POST", "/small", tc.body, append([]string{"Content-Type", isJSON, "Accept", isJSON}, tc.fields...)...)
			if chunked {
				request.ContentLength = -1
			}
			got, err := do(g.client, request)
			must(t, "asking", err)
			want := fmt.Sprintf(`{"error":%q,"status":%d}`, http.StatusText(tc.status), tc.status)
			if got.status != tc.status || tc.status != 200 && got.body != want {
				t.Errorf("%s, chunked %t: got %d and %q, want %s", name, chunked, got.status, got.body, want)
			}
		}
	}
	if got := g.metric(t, "rgate_refused_requests_total", "policy", "transform", "route", "/small", "code", "413"); got != 2 {
		t.Errorf("%v refusals are counted, want 2", got)
	}
	// With Expect: 100-continue, a Content-Length above the limit is rejected before the
	// body is sent.
	text := g.raw(t, "POST /small HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(text, "HTTP/1.1 413 ") {
		t.Errorf("got %q, want 413", text)
	}
}

const transformedResponses = `
transform:
  max_body: 64KiB
  response:
    headers: {delete: [Server], set: {X-Route: "{http.rgate.route}"}}
    status: {"404": 204, "5xx": 503}
    body: {delete: [Header, Body], rename: {Method: verb}, set: {version: "json:2"}}
routes:
  - {path_prefix: /, backend: web}
  - path_prefix: /wrapped
    strip_prefix: true
    backend: web
    transform: {response: {envelope: true, status: {"418": 404}}}
  - {path_prefix: /plain, strip_prefix: true, backend: web, transform: false}
  - {path_prefix: /down, backend: none}
backends:
  - {name: web, dial: [$BACKEND]}
  - {name: none, dial: ["127.0.0.1:1"]}
`

func TestTransformResponses(t *testing.T) {
	t.Parallel()
	config := transformedResponses
	g := startGateway(t, strings.ReplaceAll(config, "$BACKEND", startTransformBackend(t)))

	got := g.ask(t, "GET", "/a?b=c", "", "Accept-Encoding", "gzip", "Range", "bytes=0-3")
	want := `{"verb":"GET","Target":"/a?b=c","Host":"` + g.address() + `","Length":0,"version":2}`
	if got.status != 200 || strings.TrimSpace(got.body) != want || got.length != int64(len(got.body)) {
		t.Errorf("got %d and %s, want %s", got.status, got.body, want)
	}
	if header := got.header; header.Get("Etag") != `W/"v1"` || header["Server"] != nil || header.Get("X-Route") != "/" {
		t.Errorf("got %v", header)
	}
	for status, want := range map[string]int{"404": 204, "204": 204, "500": 503, "502": 503, "403": 403} {
		if got := g.ask(t, "GET", "/", "", "X-Status", status); got.status != want || (want == 204) != (got.body == "") {
			t.Errorf("%s: got %d and %q, want %d", status, got.status, got.body, want)
		}
	}
	if got := g.ask(t, "HEAD", "/", ""); got.status != 200 || got.length != -1 || got.header.Get("Etag") != `W/"v1"` {
		t.Errorf("HEAD: got %d with %v", got.status, got.header)
	}
	for target, want := range map[string]response{
		"/gzip":    {status: 502, body: "Bad Gateway\n"},
		"/endless": {status: 502, body: "Bad Gateway\n"},
		"/broken":  {status: 502, body: "Bad Gateway\n"},
		"/cut":     {status: 502, body: "Bad Gateway\n"},
		"/text":    {status: 200, body: `plain "text"`},
		"/early":   {status: 200, body: `{"version":2}`},
		"/down":    {status: 503, body: "Service Unavailable\n"},
	} {
		if got := g.get(t, target); got.status != want.status || got.body != want.body {
			t.Errorf("%s: got %d and %q, want %d and %q", target, got.status, got.body, want.status, want.body)
		}
	}
	if got := g.ask(t, "GET", "/plain/gzip", "", "Accept-Encoding", "gzip"); got.header.Get("Content-Encoding") != "gzip" {
		t.Errorf("where it is off: got %v", got.header)
	}
	output := g.output.String()
	for _, logged := range []string{"the response is larger than max_body", "the response is compressed", "the body of the response is not valid JSON or not in UTF-8"} {
		if !strings.Contains(output, logged) {
			t.Errorf("the log does not say %q", logged)
		}
	}
}

func TestTransformEnvelope(t *testing.T) {
	t.Parallel()
	config := transformedResponses
	g := startGateway(t, strings.ReplaceAll(config, "$BACKEND", startTransformBackend(t)))
	for target, want := range map[string]string{
		"/wrapped/text":   `"plain \"text\""`,
		"/wrapped/early":  `{}`,
		"/wrapped/broken": `"{\"a\":"`,
	} {
		got := g.ask(t, "GET", target, "", "X-Request-ID", "r-1")
		var envelope struct {
			Status         int
			Data           json.RawMessage
			RequestID      string  `json:"request_id"`
			Service        string  `json:"service"`
			ProcessingTime float64 `json:"processing_time"`
		}
		must(t, "reading "+got.body, json.Unmarshal([]byte(got.body), &envelope))
		if envelope.Status != 200 || string(envelope.Data) != want || envelope.RequestID != "r-1" || envelope.Service != "web" ||
			envelope.ProcessingTime <= 0 || envelope.ProcessingTime > 20_000 || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: got %s with %v", target, got.body, got.header)
		}
	}
	if got := g.ask(t, "GET", "/wrapped/x", "", "X-Status", "418"); got.status != 404 || !strings.HasPrefix(got.body, `{"status":404,"data":{"Method":"GET","Target":"/x",`) {
		t.Errorf("got %d and %s", got.status, got.body)
	}
	if got := g.ask(t, "GET", "/wrapped/x", "", "X-Status", "204"); got.status != 204 || got.body != "" {
		t.Errorf("got %d and %q", got.status, got.body)
	}
}

// The backend sends the second event after the client has received the first.
func TestTransformLetsStreamsThrough(t *testing.T) {
	t.Parallel()
	config := transformedResponses
	g := startGateway(t, strings.ReplaceAll(config, "$BACKEND", startTransformBackend(t)))
	for _, prefix := range []string{"", "/wrapped"} {
		response, err := g.client.Do(g.request(t, "GET", prefix+"/sse", ""))
		must(t, "asking for events", err)
		late := time.AfterFunc(patience, func() { _ = response.Body.Close() })
		lines := bufio.NewReader(response.Body)
		for n := range 3 {
			line, err := lines.ReadString('\n')
			if want := fmt.Sprintf("data: {\"n\":%d}\n", n); err != nil || line != want {
				t.Fatalf("got %q and %v, want %q", line, err, want)
			}
			_, _ = lines.ReadString('\n')
			g.get(t, "/plain/next")
		}
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
			t.Errorf("got %q and %v at the end", rest, err)
		}
		late.Stop()
		_ = response.Body.Close()

		conn, err := websocket.Dial("ws://"+g.address()+prefix+"/ws", "", "http://elsewhere.example")
		must(t, "opening a WebSocket", err)
		must(t, "setting a deadline", conn.SetDeadline(time.Now().Add(patience)))
		for _, sent := range []string{"a", strings.Repeat("b", 100_000)} {
			must(t, "sending", websocket.Message.Send(conn, sent))
			var got string
			if err := websocket.Message.Receive(conn, &got); err != nil || got != sent {
				t.Errorf("got %d bytes and %v, want %d", len(got), err, len(sent))
			}
		}
		must(t, "closing", conn.Close())
	}
}

// The policy works in a site without a gateway, behind Caddy's encode handler.
func TestTransformWithoutAGateway(t *testing.T) {
	t.Parallel()
	backend := startTransformBackend(t)
	g := launch(t, "Caddyfile", `{
	admin localhost:$ADMIN
}
:$PORT {
	encode gzip {
		minimum_length 1
	}
	rgate_transform {
		request {
			path /v2{path}
			body {
				set n json:5
				set who {header.X-Who}
			}
		}
		response {
			body {
				delete Header
			}
			envelope
		}
	}
	reverse_proxy `+backend+`
}
`, nil, "run", "--config", "$FILE")
	got := g.ask(t, "POST", "/a", `{}`, "Content-Type", "application/json", "X-Who", `"me"`, "Accept-Encoding", "gzip", "X-Request-Id", "1")
	if got.header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("got %d with %v", got.status, got.header)
	}
	z, err := gzip.NewReader(bytes.NewReader([]byte(got.body)))
	must(t, "decompressing", err)
	body, err := io.ReadAll(z)
	must(t, "decompressing", err)
	host, _, _ := net.SplitHostPort(backend)
	want := `{"status":200,"data":{"Method":"POST","Target":"/v2/a","Host":"` + host
	if !strings.HasPrefix(string(body), want) || !strings.Contains(string(body), `"Body":"{\"n\":5,\"who\":\"\\\"me\\\"\"}"`) || !strings.Contains(string(body), `"service":""`) {
		t.Errorf("got %s, want %s…", body, want)
	}
}
