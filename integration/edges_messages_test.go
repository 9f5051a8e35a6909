package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/rgate/rgate/internal/testkit"
)

func TestA6GetOfUnknownLengthIsAGet(t *testing.T) {
	t.Parallel()
	b, other := startEdgeBackend(t), startEdgeBackend(t)
	other.Config.Handler = b // a second address of the same backend
	gate := newGated(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "shared") })
	g := startAllVersions(t, edgeSite(b, strings.NewReplacer("$OTHER", other.dial(), "$DIAL", b.dial(), "$GATE", gate.Listener.Addr().String()).Replace(`backend two {
		dial $DIAL $OTHER
	}
	backend gate {
		dial $GATE
	}
	route /two two
	route /cache web {
		cache 1m
	}
	route /coalesce gate {
		coalesce
	}
	route /json web {
		transform {
			request {
				body {
					set a json:1
				}
			}
		}
	}
	route /fallback two {
		fallback {
			backend web
		}
	}`)), "")

	// get sends a GET request whose header does not show whether a body follows.
	conns := g.rawVersions(t)
	get := func(version, path, body string, fields ...string) response {
		t.Helper()
		conn, ok := conns[version]
		if !ok {
			chunk := ""
			if body != "" {
				chunk = fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
			}
			request := "GET " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
			for i := 0; i < len(fields); i += 2 {
				request += fields[i] + ": " + fields[i+1] + "\r\n"
			}
			resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(g.raw(t, request+"\r\n"+chunk+"0\r\n\r\n"))), nil)
			must(t, "reading a response", err)
			text, err := io.ReadAll(resp.Body)
			must(t, "reading a body", err)
			return response{status: resp.StatusCode, header: resp.Header, body: string(text)}
		}
		stream := conn.open(t, false, append([]string{":method", "GET", ":scheme", "https", ":authority", "x", ":path", path}, fields...)...)
		stream.write(t, body, true)
		return readResponse(t, stream).response
	}
	for i, version := range []string{"HTTP/1.1", "h2c", "HTTP/2", "HTTP/3"} {
		path := func(of string) string { return fmt.Sprintf("/%s/%d/", of, i) }
		if got := reach(t, version, get(version, path("any"), "")); got.Chunked || got.Length != 0 {
			t.Errorf("%s: a GET without a body reached the backend as %+v", version, got)
		}
		if got := reach(t, version, get(version, path("any"), "body")); got.Body != "body" {
			t.Errorf("%s: the body of a GET reached the backend as %q", version, got.Body)
		}
		if got := get(version, path("two")+"~flaky", ""); got.status != 200 {
			t.Errorf("%s: a GET whose connection was lost got %d, want a retry", version, got.status)
		}
		if got := get(version, path("two")+"b~flaky", "body"); got.status != 503 {
			t.Errorf("%s: a GET whose body was sent and lost got %d, want 503", version, got.status)
		}
		for range 2 {
			get(version, path("cache")+"~cached", "")
			get(version, path("cache")+"b~cached", "body")
		}
		if n := b.count(path("cache") + "~cached"); n != 1 {
			t.Errorf("%s: two equal GETs reached the backend %d times, want once", version, n)
		}
		if n := b.count(path("cache") + "b~cached"); n != 2 {
			t.Errorf("%s: two GETs with a body reached the backend %d times, want twice", version, n)
		}
		reach(t, version+" without JSON", get(version, path("json"), "", "content-type", "application/json"))
		if got := reach(t, version, get(version, path("json"), `{"b":2}`, "content-type", "application/json")); got.Body != `{"b":2,"a":1}` {
			t.Errorf("%s: the JSON body of a GET reached the backend as %q", version, got.Body)
		}
		if got := get(version, path("json"), `{`, "content-type", "application/json"); got.status != 400 {
			t.Errorf("%s: broken JSON got %d, want 400", version, got.status)
		}
	}
	// A GET request is served even if the client neither sends nor ends a body.
	for version, conn := range conns {
		for _, path := range []string{"/open/", "/cache/open/", "/plain/open/"} {
			stream := conn.open(t, false, ":method", "GET", ":scheme", "https", ":authority", "x", ":path", path+"~atonce")
			if got, _ := readHeader(t, stream); got.status != 200 {
				t.Errorf("%s: a GET to %s that does not end got %d", version, path, got.status)
			}
			stream.write(t, "late", true)
		}
	}
	for _, target := range []string{"/open/~atonce", "/cache/open/1~atonce", "/plain/open/~atonce"} {
		if got, _, _ := rawOffer(t, g.gateway, "HTTP/1.1", target, "Transfer-Encoding: chunked"); got.status != 200 {
			t.Errorf("HTTP/1.1: a GET to %s that does not end got %d", target, got.status)
		}
	}

	var all sync.WaitGroup
	var shared atomic.Int32
	for _, client := range g.versions(t) {
		for range 3 {
			all.Go(func() {
				if got := client.ask(t, "GET", "/coalesce", ""); got.status == 200 && got.body == "shared" {
					shared.Add(1)
				}
			})
		}
	}
	g.awaitInFlight(t, 15)
	close(gate.open)
	all.Wait()
	// One request for HTTP and one for HTTPS, whose responses may differ.
	if n := gate.reached.Load(); n > 2 || shared.Load() != 15 {
		t.Errorf("15 requests at once reached the backend %d times, %d got the response", n, shared.Load())
	}
}

func TestA7ResponsesThatAreNoneAreNotPassedOn(t *testing.T) {
	t.Parallel()
	b := startEdgeBackend(t)
	g := startAllVersions(t, edgeSite(b, ""), "")
	for _, client := range g.versions(t) {
		for _, path := range []string{"/~unasked", "/~000", "/~099"} {
			if got := client.ask(t, "GET", path, ""); got.status != http.StatusBadGateway {
				t.Errorf("%s: %s got %d with %q, want 502", client.name, path, got.status, got.body)
			}
		}
	}
	for _, target := range []string{"/~mismatch", "/~000"} {
		got, _, _ := rawOffer(t, g.gateway, "HTTP/1.1", target, "Connection: Upgrade", "Upgrade: websocket")
		if got.status != http.StatusBadGateway {
			t.Errorf("%s for a WebSocket got %d, want 502", target, got.status)
		}
	}
	for version, conn := range g.rawVersions(t) {
		for _, path := range []string{"/~mismatch", "/~000"} {
			stream := conn.open(t, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "x", ":path", path)
			if got, _ := readHeader(t, stream); got.status != http.StatusBadGateway {
				t.Errorf("%s: %s for a WebSocket got %d, want 502", version, path, got.status)
			}
		}
		got := readResponse(t, conn.open(t, true, ":method", "GET", ":scheme", "https", ":authority", "x", ":path", "/~early"))
		if len(got.informational) != 1 || got.status != 200 {
			t.Errorf("%s: got %v and %d, want 103 and 200", version, got.informational, got.status)
		}
	}
	// HTTP/1.0 has no 1xx responses (RFC 9110, section 15.2).
	for _, target := range []string{"/~early", "/plain/~early"} {
		if text := g.raw(t, "GET "+target+" HTTP/1.0\r\n\r\n"); !strings.HasPrefix(text, "HTTP/1.0 200 ") || strings.Contains(text, "Early Hints") || !strings.HasSuffix(text, "late") {
			t.Errorf("%s over HTTP/1.0 got %q, want 200 at once", target, text)
		}
		if text := g.raw(t, "GET "+target+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(text, "HTTP/1.1 103 ") {
			t.Errorf("%s over HTTP/1.1 got %q, want 103 first", target, text)
		}
	}
	// RFC 9112, section 6.3: net/http ignores Content-Length if Transfer-Encoding is
	// present, and removes it before handlers run.
	text := g.raw(t, "POST /cl-te HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	if !strings.Contains(text, `"Body":"hello"`) || strings.Contains(text, `"Content-Length"`) {
		t.Errorf("a request with both lengths got %q", text)
	}
}

func TestA9RewritesKeepThePathsBytes(t *testing.T) {
	t.Parallel()
	b := startEdgeBackend(t)
	g := startGateway(t, strings.ReplaceAll(`
routes:
  - {path_prefix: /, backend: web}
  - {path_prefix: /api, backend: rewritten}
  - {path_prefix: /strip, backend: web, strip_prefix: true}
  - {path_prefix: /transform, backend: web, transform: {request: {query: {set: {a: b}}}}}
backends:
  - {name: web, dial: ["$DIAL"]}
  - {name: rewritten, dial: ["$DIAL"], proxy: {rewrite: {strip_path_prefix: /api}}}
`, "$DIAL", b.dial()))
	for target, want := range map[string]string{
		"/api/a":                 "/a",
		"/api/a|b":               "/a%7Cb", // Caddy's rewrite normalizes the path
		"/api/a|b?c|d":           "/a%7Cb?c|d",
		"/api/a%7Cb":             "/a%7Cb",
		"/api/a%2Fb":             "/a%2Fb",
		"/strip/a|b":             "/a|b",
		"/strip/a|b?c|d":         "/a|b?c|d",
		"/strip/{a}^b`\"<>":      "/{a}^b`\"<>",
		"/strip/caf\xc3\xa9":     "/caf\xc3\xa9",
		"/strip/a%7Cb%2Fc":       "/a%7Cb%2Fc",
		"/strip":                 "/",
		"/transform/a|b":         "/transform/a|b?a=b",
		"/a|b":                   "/a|b",
		"http://x":               "/",
		"http://x?a=b":           "/?a=b",
		"http://x/":              "/",
		"http://x/a|b?c|d":       "/a|b?c|d",
		"http://x/strip/a|b":     "/a|b",
		"http://x/api/a%2Fb?c=d": "/a%2Fb?c=d",
	} {
		if got := reach(t, target, g.rawGet(t, target)); string(got.Target) != want {
			t.Errorf("%s reached the backend as %s, want %s", target, got.Target, want)
		}
	}
}

// bytesCodec is a gRPC codec that passes messages through unchanged.
type bytesCodec struct{}

func (bytesCodec) Name() string                        { return "bytes" }
func (bytesCodec) Marshal(message any) ([]byte, error) { return *message.(*[]byte), nil }
func (bytesCodec) Unmarshal(text []byte, into any) error {
	*into.(*[]byte) = append([]byte(nil), text...)
	return nil
}

func TestA12ErrorsForGRPCClientsHaveGRPCStatus(t *testing.T) {
	t.Parallel()
	b := startEdgeBackend(t)
	alone := `handle /alone/* {
		rgate_api_key {
			keys alice ` + hashOfKey("key") + `
		}
		reverse_proxy ` + b.dial() + `
	}
	`
	g := startAllVersions(t, "log\n"+alone+edgeSite(b, `backend down {
		dial 127.0.0.1:1
	}
	backend slow {
		dial `+b.dial()+`
		timeouts {
			first_byte 50ms
		}
	}
	default_response "nothing here" 404
	route /down down
	route /slow slow
	route /keyed web {
		api_key {
			keys alice `+hashOfKey("key")+`
		}
	}
	route /forbidden web {
		ip_filter {
			deny 127.0.0.0/8 ::1
		}
	}
	route /limited web {
		rate_limit 1 1h
	}
	route /large web {
		security {
			max_body 10
		}
	}
	route /fallback down {
		fallback {
			response "later" 503
		}
	}
	route /errors web {
		methods DELETE
	}`), "")
	g.get(t, "/limited")
	failed := g.stats(t, "").Requests.Error
	client, err := grpc.NewClient("passthrough:///"+g.address(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{})))
	must(t, "making a gRPC client", err)
	defer client.Close()
	codesOf := map[string]codes.Code{
		"/keyed/call": codes.Unauthenticated, "/forbidden/call": codes.PermissionDenied, "/limited/call": codes.ResourceExhausted,
		"/down/call": codes.Unavailable, "/fallback/call": codes.Unavailable, "/slow/~slow": codes.DeadlineExceeded,
		"/errors/call": codes.Unimplemented, "/none/call": codes.Unimplemented, "/large/call": codes.ResourceExhausted,
	}
	for method, want := range codesOf {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		message, received := make([]byte, 100), []byte(nil)
		err := client.Invoke(ctx, method, &message, &received)
		cancel()
		// gRPC clients generate their own message for responses that are not gRPC.
		if got := status.Convert(err); got.Code() != want || strings.Contains(got.Message(), "HTTP") {
			t.Errorf("%s: got %s with %q, want %s", method, got.Code(), got.Message(), want)
		}
	}
	if got := g.stats(t, "").Requests; got.Error != failed+len(codesOf) {
		t.Errorf("the statistics count %d errors more, want %d", got.Error-failed, len(codesOf))
	}
	for _, want := range []string{`"http_status":401`, `"http_status":503`, `"http_status":504`} {
		testkit.Eventually(t, "the access log has "+want, func() bool { return strings.Contains(g.output.String(), want) })
	}

	for version, conn := range g.rawVersions(t) {
		ask := func(path string, fields ...string) rawResponse {
			return readResponse(t, conn.open(t, true, append([]string{":method", "POST", ":scheme", "https", ":authority", "x", ":path", path}, fields...)...))
		}
		for _, contentType := range []string{"application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"} {
			got := ask("/keyed/call", "content-type", contentType, "te", "trailers")
			if got.status != 200 || got.header.Get("Grpc-Status") != "16" || got.header.Get("Grpc-Message") != "Unauthorized" || got.body != "" ||
				got.header.Get("Content-Type") != "application/grpc" || got.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: %s got %+v", version, contentType, got)
			}
		}
		if got := ask("/a#b", "content-type", "application/grpc"); got.header.Get("Grpc-Status") != "13" {
			t.Errorf("%s: a target with a fragment got %+v", version, got)
		}
		if got := ask("/alone/call", "content-type", "application/grpc"); got.status != 200 || got.header.Get("Grpc-Status") != "16" {
			t.Errorf("%s: a policy alone got %+v", version, got)
		}
		for _, contentType := range []string{"application/json", "application/grpc-web+proto", "application/grpcx"} {
			if got := ask("/keyed/call", "content-type", contentType); got.status != 401 || got.header.Get("Grpc-Status") != "" {
				t.Errorf("%s: %s got %+v, want 401", version, contentType, got)
			}
		}
	}
	// gRPC requires HTTP/2.
	if got := g.ask(t, "POST", "/keyed/call", "", "Content-Type", "application/grpc"); got.status != 401 {
		t.Errorf("over HTTP/1.1 got %d, want 401", got.status)
	}
}
