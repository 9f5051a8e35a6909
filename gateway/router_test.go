package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
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
			route, allowed := newRouter(routes).find(httptest.NewRequest(test.method, test.url, nil))
			if route == nil || route.Name != test.want || allowed != nil {
				t.Errorf("%s %s: got %v, %v; want %s", test.method, test.url, route, allowed, test.want)
			}
		}
	}
}

func TestRouterNamesAllowedMethodsIfOnlyTheMethodFails(t *testing.T) {
	rt := newRouter([]*Route{
		{PathPrefix: "/api", Methods: []string{"GET", "PUT"}},
		{PathPrefix: "/api/x", Methods: []string{"DELETE"}},
		{PathPrefix: "/api/x", Methods: []string{"PATCH"}, Hosts: []string{"other.example.com"}},
	})
	for _, test := range []struct{ method, path, want string }{
		{"POST", "/api", "[GET HEAD PUT]"},
		{"POST", "/api/x", "[DELETE GET HEAD PUT]"},
		{"POST", "/", "[]"},
	} {
		route, allowed := rt.find(httptest.NewRequest(test.method, test.path, nil))
		if route != nil || fmt.Sprint(allowed) != test.want {
			t.Errorf("%s %s: got %v, %v; want no route and %s", test.method, test.path, route, allowed, test.want)
		}
	}
	for _, method := range []string{"GET", "HEAD", "PUT"} {
		if route, _ := rt.find(httptest.NewRequest(method, "/api/x", nil)); route == nil {
			t.Errorf("%s /api/x: found no route, want the one at the shorter prefix", method)
		}
	}
}

// FuzzRouter compares the router with the definition of what it does, applied to
// every route in turn.
func FuzzRouter(f *testing.F) {
	f.Add("/api\n/api/pay segment\n/api/pay GET", "GET", "/api/payment")
	f.Add("/\n/a segment\n/a/b POST", "PUT", "/a/b")
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
			if !slices.ContainsFunc(routes, rt.equals) {
				routes = append(routes, rt)
			}
		}
		r := &http.Request{Method: method, URL: httptest.NewRequest("GET", "/", nil).URL}
		r.URL.Path = path
		var want *Route
		for _, rt := range routes {
			if strings.HasPrefix(path, rt.PathPrefix) && rt.takesPath(path) && rt.takesMethod(method) &&
				(want == nil || len(rt.PathPrefix) > len(want.PathPrefix) ||
					len(rt.PathPrefix) == len(want.PathPrefix) && rt.specificity() > want.specificity()) {
				want = rt
			}
		}
		if got, _ := newRouter(routes).find(r); got != want {
			t.Errorf("%s %q among %q: got %+v, want %+v", method, path, list, got, want)
		}
	})
}

func (rt *Route) equals(other *Route) bool {
	return rt.PathPrefix == other.PathPrefix && rt.Match == other.Match && slices.Equal(rt.Methods, other.Methods)
}
