package routing

import (
	"bufio"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestRemoveDotSegments(t *testing.T) {
	for in, want := range map[string]string{ // RFC 3986, section 5.2.4
		"/a/b/c/./../../g": "/a/g", "/..": "/", "/../g": "/g", "/./g": "/g", "/g.": "/g.", "/.g": "/.g", "/g..": "/g..", "/..g": "/..g",
		"/./../g": "/g", "/./g/.": "/g/", "/g/./h": "/g/h", "/g/../h": "/h", "/a//../b": "/a/b", "//../b": "/b", "/a/..": "/",
		"*": "*", "": "", "/": "/",
	} {
		if got := removeDotSegments(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

// An accepted target has the same route for backends that normalize paths differently.
func FuzzIsAmbiguous(f *testing.F) {
	for _, target := range []string{
		"/public/../admin", "/public/a%2F..%2fb", `/x\..\admin`, "/users/1/a/../../2/b", "/x/..;/admin", "/%252e%252e/admin", "/a//../b", "/./public",
	} {
		f.Add(target)
	}
	var routes []namedRoute
	for _, path := range []string{"/", "/admin", "/public", "/public/admin", "/users/:id/*", "/users/:id/secret", "/:a/:b"} {
		routes = append(routes, namedRoute{path, Route{Path: path}})
	}
	router := newTestRouter(routes)
	readers := map[string]func(u *url.URL) string{
		"path.Clean":  func(u *url.URL) string { return keepSlash(u.Path, path.Clean(u.Path)) },
		"a reference": func(u *url.URL) string { return new(url.URL).ResolveReference(&url.URL{Path: u.Path}).Path },
		"JoinPath":    func(u *url.URL) string { return u.JoinPath().Path },
		"a back end":  func(u *url.URL) string { p := strings.ReplaceAll(u.Path, `\`, "/"); return keepSlash(p, path.Clean(p)) },
		"encoded last": func(u *url.URL) string {
			p := path.Clean(u.EscapedPath())
			d, _ := url.PathUnescape(keepSlash(u.EscapedPath(), p))
			return d
		},
	}
	f.Fuzz(func(t *testing.T, target string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n")))
		if err != nil || !strings.HasPrefix(r.URL.Path, "/") {
			return
		}
		route, _ := router.Find(r, r.URL.Path)
		if route == nil || router.IsAmbiguous(r, route) {
			return
		}
		for name, read := range readers {
			if other, _ := router.Find(r, read(r.URL)); other != route {
				t.Errorf("%q is accepted for %s, but %s reads %q, which has the route %s", target, route, name, read(r.URL), other)
			}
		}
	})
}

func keepSlash(before, after string) string {
	if after != "/" && (strings.HasSuffix(before, "/") || strings.HasSuffix(before, "/.") || strings.HasSuffix(before, "/..")) {
		after += "/"
	}
	return after
}
