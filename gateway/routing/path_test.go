package routing

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
)

// received parses a request with exactly this target, as a server does.
func received(t *testing.T, target string) *http.Request {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n")))
	if err != nil {
		t.Fatalf("reading a request for %q: %v", target, err)
	}
	return r
}

func TestPathKeepsItsBytes(t *testing.T) {
	for _, target := range []string{
		"/", "/api/payment", "/a%2Fb", "/a%2fb?x=%2F", "/a//b", "/%7Euser/~user", "/a{b}|c^", "/caf\xc3\xa9",
		"/caf%C3%A9", "/a;b=c", "/a?", "/a?x=1;y=2", "/a'b(c)*!", "/a/../b", "/%2e%2e/b", `/a"b<c>`, "/a?q={x}|",
	} {
		r := received(t, target)
		KeepPathBytes(r)
		if got := r.URL.RequestURI(); got != target {
			t.Errorf("%s reaches the backend as %s", target, got)
		}
	}
}

func TestPathOfAnAbsoluteTargetKeepsItsBytes(t *testing.T) {
	for target, want := range map[string]string{
		"http://x/a|b?c": "/a|b?c", "http://x/": "/", "http://x/a%2Fb": "/a%2Fb", "http://x/?a": "/?a", "http://x": "/",
	} {
		r := received(t, target)
		r.URL.Scheme, r.URL.Host = "http", "backend"
		KeepPathBytes(r)
		if got := r.URL.RequestURI(); got != want {
			t.Errorf("%s reaches the backend as %s, want %s", target, got, want)
		}
	}
}

func TestARewrittenPathIsKept(t *testing.T) {
	r := received(t, "/a{b}")
	r.URL.Path, r.URL.RawPath = "/rewritten", ""
	KeepPathBytes(r)
	if got := r.URL.RequestURI(); got != "/rewritten" {
		t.Errorf("got %s, want the path that the handler set", got)
	}
}

func TestStripPrefix(t *testing.T) {
	for _, test := range []struct{ target, prefix, want string }{
		{"/api/users", "/api", "/users"},
		{"/api/users", "/api/", "/users"},
		{"/api", "/api", "/"},
		{"/api/", "/api", "/"},
		{"/apiary", "/api", "/ary"},
		{"/api?x=1", "/api", "/?x=1"},
		{"/%61pi/a%2Fb", "/api", "/a%2Fb"},
		{"/api%2Fa%2Fb", "/api", "/a%2Fb"},
		{"/caf%C3%A9/a%2Fb", "/café", "/a%2Fb"},
		{"/users", "/", "/users"},
		{"/api/a|b", "/api", "/a|b"},
		{"/api/a|b?c|d", "/api", "/a|b?c|d"},
		{"/api/caf\xc3\xa9", "/api", "/caf\xc3\xa9"},
		{"/api/a|b?", "/api", "/a|b?"},
		{"http://x/api/a|b", "/api", "/a|b"},
		{"http://x/api", "/api", "/"},
	} {
		r := received(t, test.target)
		StripPrefix(r, len(strings.TrimSuffix(test.prefix, "/")))
		KeepPathBytes(r)
		if got := r.URL.RequestURI(); got != test.want {
			t.Errorf("%s without %s: got %s, want %s", test.target, test.prefix, got, test.want)
		}
		if r.RequestURI != test.want {
			t.Errorf("%s without %s: the placeholder is %s, want %s", test.target, test.prefix, r.RequestURI, test.want)
		}
	}
}

func FuzzStripPrefix(f *testing.F) {
	f.Add("/api/a%2Fb", "/api")
	f.Add("/%61pi", "/a")
	f.Fuzz(func(t *testing.T, target, prefix string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n")))
		if err != nil || !strings.HasPrefix(target, "/") || !strings.HasPrefix(prefix, "/") || !strings.HasPrefix(r.URL.Path, prefix) {
			return
		}
		StripPrefix(r, len(strings.TrimSuffix(prefix, "/")))
		if !strings.HasPrefix(r.URL.Path, "/") || !strings.HasPrefix(r.URL.EscapedPath(), "/") {
			t.Errorf("%q without %q: path %q, encoded %q", target, prefix, r.URL.Path, r.URL.EscapedPath())
		}
	})
}
