package gateway

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

func TestRouterChooses(t *testing.T) {
	routes := []*Route{
		{Name: "root", PathPrefix: "/"},
		{Name: "api", PathPrefix: "/api"},
		{Name: "payment", PathPrefix: "/api/payment"},
		{Name: "orders", PathPrefix: "/api/orders", Match: matchSegment},
		{Name: "orders-post", PathPrefix: "/api/orders", Match: matchSegment, Methods: []string{"POST"}},
		{Name: "shop", PathPrefix: "/api", Hosts: []string{"shop.example.com"}},
		{Name: "any-shop", PathPrefix: "/api", Hosts: []string{"*.example.com"}},
		{Name: "slash", PathPrefix: "/files/", Match: matchSegment},
	}
	for _, test := range []struct{ method, url, want string }{
		{"GET", "/", "root"},
		{"GET", "/x", "root"},
		{"GET", "/api", "api"},
		{"GET", "/apiary", "api"},
		{"GET", "/API", "root"},
		{"GET", "/api/payment", "payment"},
		{"GET", "/api/paymentX", "payment"},
		{"GET", "/api/pay", "api"},
		{"GET", "/api/orders", "orders"},
		{"GET", "/api/orders/", "orders"},
		{"GET", "/api/orders/7", "orders"},
		{"POST", "/api/orders/7", "orders-post"},
		{"GET", "/api/ordersX", "api"},
		{"GET", "/api/%6frders", "orders"},
		{"GET", "http://shop.example.com/api/x", "shop"},
		{"GET", "http://SHOP.example.com:8080/api/x", "shop"},
		{"GET", "http://shop.example.com./api/x", "shop"},
		{"GET", "http://other.example.com/api/x", "any-shop"},
		{"GET", "http://a.b.example.com/api/x", "api"},
		{"GET", "http://example.com/api/x", "api"},
		{"GET", "http://shop.example.com/api/payment", "payment"},
		{"GET", "/files/a", "slash"},
		{"GET", "/files", "root"},
	} {
		// Whatever the order of the configuration.
		for _, order := range []func([]*Route){func([]*Route) {}, slices.Reverse[[]*Route]} {
			order(routes)
			route, allowed := find(routes, httptest.NewRequest(test.method, test.url, nil))
			if route == nil || route.Name != test.want || allowed != nil {
				t.Errorf("%s %s: got %v, %v; want %s", test.method, test.url, route, allowed, test.want)
			}
		}
	}
}

func TestRouterNamesAllowedMethodsIfOnlyTheMethodFails(t *testing.T) {
	routes := []*Route{
		{PathPrefix: "/api", Methods: []string{"GET", "PUT"}},
		{PathPrefix: "/api/x", Methods: []string{"DELETE"}},
		{PathPrefix: "/api/x", Methods: []string{"PATCH"}, Hosts: []string{"other.example.com"}},
	}
	for _, test := range []struct{ method, path, want string }{
		{"POST", "/api", "[GET HEAD PUT]"},
		{"POST", "/api/x", "[DELETE GET HEAD PUT]"},
		{"POST", "/", "[]"},
	} {
		route, allowed := find(routes, httptest.NewRequest(test.method, test.path, nil))
		if route != nil || fmt.Sprint(allowed) != test.want {
			t.Errorf("%s %s: got %v, %v; want no route and %s", test.method, test.path, route, allowed, test.want)
		}
	}
	for _, method := range []string{"GET", "HEAD", "PUT"} {
		if route, _ := find(routes, httptest.NewRequest(method, "/api/x", nil)); route == nil {
			t.Errorf("%s /api/x: found no route, want the one at the shorter prefix", method)
		}
	}
}

// find returns the route that a router of these routes chooses.
func find(routes []*Route, r *http.Request) (*Route, []string) {
	for _, rt := range routes {
		rt.pattern, _ = rt.parsePattern()
	}
	r = r.WithContext(context.WithValue(r.Context(), caddy.ReplacerCtxKey, caddy.NewReplacer()))
	return newRouter(routes).find(r, r.URL.Path)
}

func TestRouterChoosesByPattern(t *testing.T) {
	var routes []*Route
	for _, path := range []string{
		"/users", "/users/:id", "/users/me", "/users/:id/orders", "/users/:id/orders/*", "/users/me/settings/x",
		"/files/*", "/files/images/", "/files/im", "/a/:x/c", "/:y/b/c", "/a/*/d", "/a/*", "/:one", "/v/:a/:b", "/v/1/:b",
	} {
		routes = append(routes, &Route{Name: path, PathPrefix: path})
	}
	routes = append(routes,
		&Route{Name: "post", PathPrefix: "/users/:user", Methods: []string{"POST"}},
		&Route{Name: "literal", PathPrefix: "/lit/:id", Match: matchPrefix},
		&Route{Name: "v2", PathPrefix: "/users", Headers: map[string][]string{"X-Api-Version": {"2"}}},
		&Route{Name: "v3", PathPrefix: "/users", Query: map[string][]string{"version": {"3"}}},
	)
	for _, test := range []struct{ method, url, want string }{
		{"GET", "/users", "/users"},
		{"GET", "/users?version=3", "v3"},
		{"GET", "/users/7", "/users/:id"},
		{"POST", "/users/7", "post"},
		{"POST", "/users/me", "/users/me"},
		{"GET", "/users/me", "/users/me"},
		{"GET", "/users/mellow", "/users/:id"},
		{"GET", "/users/7/", "/users"},
		{"GET", "/users/", "/users"},
		{"GET", "/users/7/orders", "/users/:id/orders"},
		{"GET", "/users/7/orders/", "/users/:id/orders/*"},
		{"GET", "/users/7/orders/8/9", "/users/:id/orders/*"},
		{"GET", "/users/me/orders", "/users/me"},
		{"GET", "/users/me/settings/xy", "/users/me/settings/x"},
		{"GET", "/files/", "/files/*"},
		{"GET", "/files", "/:one"},
		{"GET", "/files/images/1", "/files/images/"},
		{"GET", "/files/images", "/files/*"},
		{"GET", "/a/b/c", "/a/:x/c"},
		{"GET", "/z/b/c", "/:y/b/c"},
		{"GET", "/a/b/d", "/a/*/d"},
		{"GET", "/a/b/e", "/a/*"},
		{"GET", "/v/1/2", "/v/1/:b"},
		{"GET", "/v/2/1", "/v/:a/:b"},
		{"GET", "/lit/7", ""},
		{"GET", "/lit/:id/x", "literal"},
		{"GET", "/", ""},
		{"GET", "//", ""},
	} {
		for _, order := range []func([]*Route){func([]*Route) {}, slices.Reverse[[]*Route]} {
			order(routes)
			route, _ := find(routes, httptest.NewRequest(test.method, "http://x"+test.url, nil))
			if got := nameOf(route); got != test.want {
				t.Errorf("%s %s: got %q, want %q", test.method, test.url, got, test.want)
			}
		}
	}
	versioned := httptest.NewRequest("GET", "/users", nil)
	versioned.Header.Set("X-API-Version", "2")
	if route, _ := find(routes, versioned); nameOf(route) != "v2" {
		t.Errorf("with the header: got %q, want v2", nameOf(route))
	}
}

func nameOf(rt *Route) string {
	if rt == nil {
		return ""
	}
	return rt.Name
}

// kinds says of every segment of a path how a route knows it: by its text (3), a
// parameter (2), a wildcard (1), or not at all (0), after which nothing follows.
// It returns nil if the route does not take the path. It is the definition of the
// router's order, written without a thought of speed.
func (rt *Route) kinds(path string) []int {
	segments := strings.Split(path, "/")[1:]
	var all []int
	if rt.pattern == nil {
		if !strings.HasPrefix(path, rt.PathPrefix) || !rt.takesPath(path) {
			return nil
		}
		end := 0
		for _, text := range segments {
			if end += 1 + len(text); end > len(rt.PathPrefix) {
				return append(all, 0)
			}
			all = append(all, 3)
		}
		return all
	}
	for i, s := range rt.pattern {
		if i >= len(segments) || s.kind != segmentRest && i == len(rt.pattern)-1 && len(segments) != len(rt.pattern) {
			return nil
		}
		switch {
		case s.kind == segmentText && s.text == segments[i]:
			all = append(all, 3)
		case s.kind == segmentParam && segments[i] != "":
			all = append(all, 2)
		case s.kind == segmentAny && segments[i] != "":
			all = append(all, 1)
		case s.kind == segmentRest:
			return append(all, 1, -1) // one segment is better than any number
		default:
			return nil
		}
	}
	return all
}

// FuzzRouter compares the router with the definition of what it does, applied to
// every route in turn.
func FuzzRouter(f *testing.F) {
	f.Add("/api\n/api/pay segment\n/api/pay GET", "GET", "/api/payment")
	f.Add("/\n/a segment\n/a/b POST", "PUT", "/a/b")
	f.Add("/users\n/users/:id\n/users/me\n/users/:id/*\n/users/*/x", "GET", "/users/me/x")
	f.Add("/a/*\n/a/*/b\n/a/:x/b POST\n/a/b/\n/:a/b", "GET", "/a/b/b")
	f.Fuzz(func(t *testing.T, list, method, path string) {
		var routes []*Route
		for line := range strings.Lines(list) {
			prefix, options, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			rt := &Route{PathPrefix: "/" + strings.TrimPrefix(prefix, "/")}
			if options == matchSegment {
				rt.Match = matchSegment
			} else if options != "" {
				rt.Methods = []string{options}
			}
			if _, err := rt.parsePattern(); err == nil && !slices.ContainsFunc(routes, rt.equals) {
				routes = append(routes, rt)
			}
		}
		if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		r := &http.Request{Method: method, URL: &url.URL{Path: path}}
		got, _ := find(routes, r)
		var want *Route
		for _, rt := range routes {
			kinds := rt.kinds(path)
			if kinds == nil || !rt.takesMethod(method) {
				continue
			}
			if want == nil || cmp.Or(slices.Compare(kinds, want.kinds(path)), cmp.Compare(len(rt.PathPrefix), len(want.PathPrefix))*plain(rt, want), cmp.Compare(rt.specificity(), want.specificity())) > 0 {
				want = rt
			}
		}
		if got != want {
			t.Errorf("%s %q among %q: got %+v, want %+v", method, path, list, got, want)
		}
	})
}

// plain is 1 if both routes are prefixes, of which the longer wins even if they
// spell out the same segments.
func plain(a, b *Route) int {
	if a.pattern == nil && b.pattern == nil {
		return 1
	}
	return 0
}

func (rt *Route) equals(other *Route) bool {
	p, _ := rt.parsePattern()
	q, _ := other.parsePattern()
	same := rt.PathPrefix == other.PathPrefix
	if p != nil && q != nil {
		same = p.shape() == q.shape()
	}
	return same && rt.Match == other.Match && slices.Equal(rt.Methods, other.Methods)
}
