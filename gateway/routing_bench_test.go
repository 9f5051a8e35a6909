package gateway

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// BenchmarkRouting compares what it costs to find the route of a request: by
// looking at one after the other, as a list does; by Caddy's own list of routes
// with path matchers; and by the gateway's router, for prefixes and for patterns.
// The routes asked for lie at even distances all over the configuration.
func BenchmarkRouting(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000, 1_000_000} {
		prefixes := make([]string, n)
		for i := range prefixes {
			prefixes[i] = fmt.Sprintf("/api/v%d/service-%d/resource", i%3+1, i)
		}
		b.Run(fmt.Sprintf("list/routes=%d", n), func(b *testing.B) { benchmarkList(b, prefixes) })
		b.Run(fmt.Sprintf("caddy/routes=%d", n), func(b *testing.B) { benchmarkCaddy(b, prefixes) })
		b.Run(fmt.Sprintf("prefixes/routes=%d", n), func(b *testing.B) { benchmarkRouter(b, prefixes, "") })
		b.Run(fmt.Sprintf("patterns/routes=%d", n), func(b *testing.B) { benchmarkRouter(b, prefixes, "/:id/details") })
	}
}

// requestsTo makes requests to routes at even distances. There are as many of them
// whatever the number of routes, so that what differs is the search alone, and not
// the wait for the requests themselves.
func requestsTo(prefixes []string, rest string) []*http.Request {
	requests := make([]*http.Request, 1024)
	ctx := context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer())
	for i := range requests {
		prefix := prefixes[i*len(prefixes)/len(requests)]
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: prefix + rest}, Header: http.Header{}}
		requests[i] = r.WithContext(ctx)
	}
	return requests
}

func benchmarkList(b *testing.B, prefixes []string) {
	requests := requestsTo(prefixes, "/42")
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		path, best := requests[i%len(requests)].URL.Path, ""
		for _, prefix := range prefixes {
			if len(prefix) > len(best) && strings.HasPrefix(path, prefix) {
				best = prefix
			}
		}
		if best == "" {
			b.Fatal("a request found no route")
		}
		i++
	}
}

func benchmarkCaddy(b *testing.B, prefixes []string) {
	var found int
	done := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { found++; return nil })
	answer := caddyhttp.MiddlewareHandler(terminal{done})
	routes := make(caddyhttp.RouteList, len(prefixes))
	for i, prefix := range prefixes {
		match := caddyhttp.MatchPath{prefix + "*"}
		if err := match.Provision(caddy.Context{}); err != nil {
			b.Fatal(err)
		}
		routes[i] = caddyhttp.Route{
			MatcherSets: caddyhttp.MatcherSets{{match}},
			Handlers:    []caddyhttp.MiddlewareHandler{answer},
			Terminal:    true,
		}
		if err := routes[i].ProvisionHandlers(caddy.Context{Context: context.Background()}, nil); err != nil {
			b.Fatal(err)
		}
	}
	handler := routes.Compile(done)
	requests := requestsTo(prefixes, "/42")
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := handler.ServeHTTP(nil, requests[i%len(requests)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
	if found < i {
		b.Fatal("a request found no route")
	}
}

// terminal is a handler that calls no other.
type terminal struct{ handler caddyhttp.Handler }

func (t terminal) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	return t.handler.ServeHTTP(w, r)
}

func benchmarkRouter(b *testing.B, prefixes []string, rest string) {
	routes := make([]*Route, len(prefixes))
	for i, prefix := range prefixes {
		routes[i] = &Route{PathPrefix: prefix + rest}
		routes[i].pattern, _ = routes[i].parsePattern()
	}
	before := heap()
	rt := newRouter(routes)
	size := float64(heap()-before) / float64(len(routes))
	requests := requestsTo(prefixes, strings.ReplaceAll(rest, ":id", "42"))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		r := requests[i%len(requests)]
		if route, _ := rt.find(r, r.URL.Path); route == nil {
			b.Fatal("a request found no route")
		}
		i++
	}
	b.ReportMetric(size, "B/route")
	runtime.KeepAlive(routes)
}

// heap returns how much memory is in use.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
