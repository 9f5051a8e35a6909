package routing

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestRouterChooses(t *testing.T) {
	routes := []namedRoute{
		{"root", Route{Path: "/"}},
		{"api", Route{Path: "/api"}},
		{"payment", Route{Path: "/api/payment"}},
		{"orders", Route{Path: "/api/orders", Segment: true}},
		{"orders-post", Route{Path: "/api/orders", Segment: true, Methods: []string{"POST"}}},
		{"shop", Route{Path: "/api", Hosts: []string{"shop.example.com"}}},
		{"any-shop", Route{Path: "/api", Hosts: []string{"*.example.com"}}},
		{"slash", Route{Path: "/files/", Segment: true}},
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
		// The configured order has no effect.
		for _, order := range []func([]namedRoute){func([]namedRoute) {}, slices.Reverse[[]namedRoute]} {
			order(routes)
			route, allowed := find(routes, httptest.NewRequest(test.method, test.url, nil))
			if route != test.want || allowed != nil {
				t.Errorf("%s %s: got %q, %v; want %s", test.method, test.url, route, allowed, test.want)
			}
		}
	}
}

func TestRouterReturnsAllowedMethodsIfOnlyTheMethodFails(t *testing.T) {
	routes := []namedRoute{
		{"api", Route{Path: "/api", Methods: []string{"GET", "PUT"}}},
		{"x", Route{Path: "/api/x", Methods: []string{"DELETE"}}},
		{"x of another host", Route{Path: "/api/x", Methods: []string{"PATCH"}, Hosts: []string{"other.example.com"}}},
	}
	for _, test := range []struct{ method, path, want string }{
		{"POST", "/api", "[GET HEAD PUT]"},
		{"POST", "/api/x", "[DELETE GET HEAD PUT]"},
		{"POST", "/", "[]"},
	} {
		route, allowed := find(routes, httptest.NewRequest(test.method, test.path, nil))
		if route != "" || fmt.Sprint(allowed) != test.want {
			t.Errorf("%s %s: got %q, %v; want no route and %s", test.method, test.path, route, allowed, test.want)
		}
	}
	for _, method := range []string{"GET", "HEAD", "PUT"} {
		if route, _ := find(routes, httptest.NewRequest(method, "/api/x", nil)); route != "api" {
			t.Errorf("%s /api/x: got %q, want the route of the shorter prefix", method, route)
		}
	}
}

// namedRoute is a route and its name.
type namedRoute struct {
	name string
	Route
}

// newTestRouter returns a router for the routes, with parsed patterns.
func newTestRouter(routes []namedRoute) *Router {
	all := make([]*Route, len(routes))
	for i := range routes {
		route := routes[i].Route
		if !route.Segment {
			route.Pattern, _ = ParsePattern(route.Path)
		}
		route.Index = i
		all[i] = &route
	}
	return New(all, exact)
}

// exact compares conditions with the values of a request; * matches any value.
var exact = Matchers{
	Headers: func(r *http.Request, want map[string][]string) bool { return holds(want, r.Header) },
	Query: func(_ *http.Request, want map[string][]string, params url.Values) bool {
		return holds(want, params)
	},
}

func holds(want, values map[string][]string) bool {
	for name, accepted := range want {
		if len(values[name]) == 0 || accepted[0] != "*" && !slices.Contains(accepted, values[name][0]) {
			return false
		}
	}
	return true
}

// find returns the name of the route that a router chooses for a request.
func find(routes []namedRoute, r *http.Request) (name string, allowed []string) {
	route, allowed := newTestRouter(routes).Find(r, r.URL.Path)
	if route == nil {
		return "", allowed
	}
	return routes[route.Index].name, allowed
}

func TestRouterChoosesByPattern(t *testing.T) {
	var routes []namedRoute
	for _, path := range []string{
		"/users", "/users/:id", "/users/me", "/users/:id/orders", "/users/:id/orders/*", "/users/me/settings/x",
		"/files/*", "/files/images/", "/files/im", "/a/:x/c", "/:y/b/c", "/a/*/d", "/a/*", "/:one", "/v/:a/:b", "/v/1/:b",
	} {
		routes = append(routes, namedRoute{path, Route{Path: path}})
	}
	routes = append(routes,
		namedRoute{"post", Route{Path: "/users/:user", Methods: []string{"POST"}}},
		namedRoute{"literal", Route{Path: "/lit/:id", Segment: true}},
		namedRoute{"v2", Route{Path: "/users", Headers: map[string][]string{"X-Api-Version": {"2"}}}},
		namedRoute{"v3", Route{Path: "/users", Query: map[string][]string{"version": {"3"}}}},
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
		for _, order := range []func([]namedRoute){func([]namedRoute) {}, slices.Reverse[[]namedRoute]} {
			order(routes)
			route, _ := find(routes, httptest.NewRequest(test.method, "http://x"+test.url, nil))
			if route != test.want {
				t.Errorf("%s %s: got %q, want %q", test.method, test.url, route, test.want)
			}
		}
	}
	versioned := httptest.NewRequest("GET", "/users", nil)
	versioned.Header.Set("X-API-Version", "2")
	if route, _ := find(routes, versioned); route != "v2" {
		t.Errorf("with the header: got %q, want v2", route)
	}
}

// A route with more conditions is more specific. Equal routes are tried in the
// configured order.
func TestMoreConditionsAreTriedFirst(t *testing.T) {
	headers := func(names ...string) map[string][]string {
		m := make(map[string][]string)
		for _, name := range names {
			m[name] = []string{"*"}
		}
		return m
	}
	query := map[string][]string{"a": {"*"}}
	inOrder := []namedRoute{
		{"segment", Route{Path: "/", Segment: true, Headers: headers("X-Segment")}},
		{"host", Route{Path: "/", Hosts: []string{"x"}, Headers: headers("A")}},
		{"wildcard", Route{Path: "/", Hosts: []string{"*.x"}, Headers: headers("A")}},
		{"two headers", Route{Path: "/", Headers: headers("A", "B")}},
		{"header and query", Route{Path: "/", Headers: headers("A"), Query: query}},
		{"header and method", Route{Path: "/", Headers: headers("A"), Methods: []string{"GET"}}},
		{"header", Route{Path: "/", Headers: headers("A")}},
		{"another header", Route{Path: "/", Headers: headers("C")}},
		{"query", Route{Path: "/", Query: query}},
		{"method", Route{Path: "/", Methods: []string{"GET"}}},
		{"none", Route{Path: "/"}},
	}
	r := httptest.NewRequest("GET", "http://a.x/?a", nil)
	for _, name := range []string{"A", "B", "C", "X-Segment"} {
		r.Header.Set(name, "1")
	}
	for i, want := range inOrder {
		if want.name == "host" { // the request has another host
			continue
		}
		routes := slices.Clone(inOrder[i:])
		if want.name != "header" { // equally specific as another header condition
			slices.Reverse(routes)
		}
		if got, _ := find(routes, r); got != want.name {
			t.Errorf("got %q, want %q", got, want.name)
		}
	}
}

// kinds returns the kind of match for each segment of a path: a literal (3), a parameter
// (2) or a wildcard (1). The last element may be 0, the open end of a prefix, or -1, the
// end of a pattern with a final wildcard. It returns nil if the route does not match the
// path. It is a slow reference for the router's order.
func (rt *Route) kinds(path string) []int {
	segments := strings.Split(path, "/")[1:]
	var all []int
	if rt.Pattern == nil {
		if !strings.HasPrefix(path, rt.Path) || !rt.matchesPath(path) {
			return nil
		}
		end := 0
		for _, text := range segments {
			if end += 1 + len(text); end > len(rt.Path) {
				return append(all, 0)
			}
			all = append(all, 3)
		}
		return all
	}
	for i, s := range rt.Pattern {
		if i >= len(segments) || s.kind != segmentRest && i == len(rt.Pattern)-1 && len(segments) != len(rt.Pattern) {
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
			return append(all, 1, -1) // a single segment comes before several
		default:
			return nil
		}
	}
	return all
}

// FuzzRouter compares the router with the reference order, applied to all routes.
func FuzzRouter(f *testing.F) {
	f.Add("/api\n/api/pay segment\n/api/pay GET", "GET", "/api/payment")
	f.Add("/\n/a segment\n/a/b POST", "PUT", "/a/b")
	f.Add("/users\n/users/:id\n/users/me\n/users/:id/*\n/users/*/x", "GET", "/users/me/x")
	f.Add("/a/*\n/a/*/b\n/a/:x/b POST\n/a/b/\n/:a/b", "GET", "/a/b/b")
	f.Fuzz(func(t *testing.T, list, method, path string) {
		var routes []*Route
		for line := range strings.Lines(list) {
			prefix, options, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			rt := &Route{Path: "/" + strings.TrimPrefix(prefix, "/")}
			if options == "segment" {
				rt.Segment = true
			} else if options != "" {
				rt.Methods = []string{options}
			}
			var err error
			if !rt.Segment {
				rt.Pattern, err = ParsePattern(rt.Path)
			}
			if err == nil && !slices.ContainsFunc(routes, rt.equals) {
				routes = append(routes, rt)
			}
		}
		if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		r := &http.Request{Method: method, URL: &url.URL{Path: path}}
		got, _ := New(routes, exact).Find(r, path)
		var want *Route
		for _, rt := range routes {
			kinds := rt.kinds(path)
			if kinds == nil || !rt.matchesMethod(method) {
				continue
			}
			if want == nil || cmp.Or(slices.Compare(kinds, want.kinds(path)), cmp.Compare(len(rt.Path), len(want.Path))*plain(rt, want), cmp.Compare(rt.specificity(), want.specificity())) > 0 {
				want = rt
			}
		}
		if got != want {
			t.Errorf("%s %q among %q: got %+v, want %+v", method, path, list, got, want)
		}
	})
}

// plain returns 1 if both routes are prefixes, else 0. The longer prefix comes first,
// even if both include the same segments.
func plain(a, b *Route) int {
	if a.Pattern == nil && b.Pattern == nil {
		return 1
	}
	return 0
}

func (rt *Route) equals(other *Route) bool {
	same := rt.Path == other.Path
	if rt.Pattern != nil && other.Pattern != nil {
		same = rt.Pattern.shape() == other.Pattern.shape()
	}
	return same && rt.Segment == other.Segment && slices.Equal(rt.Methods, other.Methods)
}
