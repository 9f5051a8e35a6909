package entry

import (
	"bufio"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// received parses a request as a server does.
func received(t *testing.T, fields ...string) *http.Request {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET / HTTP/1.1\r\nHost: x\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDropUpgradesRemovesWhatBelongsToThem(t *testing.T) {
	for _, test := range []struct {
		fields              []string
		upgrade, connection string
		dropped             []string
	}{
		{[]string{"Connection: Upgrade", "Upgrade: websocket"}, "websocket", "Upgrade", nil},
		{[]string{"Connection: upgrade", "Upgrade: h2c, websocket, other"}, "websocket", "Upgrade", []string{"h2c", "other"}},
		{[]string{"Connection: keep-alive, Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA"}, "", "keep-alive", []string{"h2c"}},
		{[]string{"Connection: keep-alive", "Connection: Upgrade, X-Hop", "Upgrade: h2c", "Upgrade: websocket"}, "websocket", "keep-alive, X-Hop, Upgrade", []string{"h2c"}},
		{[]string{"Upgrade: h2c"}, "", "", nil},
		{[]string{"Connection: HTTP2-Settings", "HTTP2-Settings: AA"}, "", "", nil},
		{[]string{"Connection: close"}, "", "close", nil},
		{[]string{"Connection: Upgrade", "Upgrade: , ,"}, "", "", nil},
	} {
		r := received(t, test.fields...)
		dropped := DropUpgrades(r, func(protocol string) bool { return protocol == "websocket" })
		if !slices.Equal(dropped, test.dropped) || r.Header.Get("Upgrade") != test.upgrade || strings.Join(r.Header["Connection"], ", ") != test.connection ||
			r.Header["Http2-Settings"] != nil {
			t.Errorf("%q: dropped %q, left %v", test.fields, dropped, r.Header)
		}
	}
}

func TestAdmissionOfAPlainRequestAllocatesNothing(t *testing.T) {
	a := admission{caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })}
	r := received(t, "Connection: keep-alive", "Accept: */*")
	if n := testing.AllocsPerRun(100, func() { _ = a.ServeHTTP(nil, r) }); n > 0 {
		t.Errorf("it takes %g allocations", n)
	}
}

func TestGRPCIsRecognizedByTypeAndVersion(t *testing.T) {
	for field, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc;a=b": true,
		"application/grpc-web": false, "application/grpcx": false, "application/json": false,
	} {
		r := received(t, "Content-Type: "+field)
		if IsGRPC(r) {
			t.Errorf("%s over HTTP/1.1 is called gRPC", field)
		}
		if r.ProtoMajor = 2; IsGRPC(r) != want {
			t.Errorf("%s: got %t, want %t", field, !want, want)
		}
	}
}

func TestEveryErrorHasAGRPCStatus(t *testing.T) {
	want := map[int]int{400: 13, 401: 16, 403: 7, 404: 12, 405: 12, 408: 4, 413: 8, 429: 8, 499: 1, 500: 13, 501: 12, 502: 14, 503: 14, 504: 4, 508: 2}
	for status, code := range want {
		if got := grpcStatus(status); got != code {
			t.Errorf("%d: got %d, want %d", status, got, code)
		}
	}
}
