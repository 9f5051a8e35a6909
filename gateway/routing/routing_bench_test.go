package routing

import (
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
)

// BenchmarkRouting compares ways to find the route of a request: a list of all routes,
// and the router with prefixes and with patterns. The requested routes are distributed
// evenly. BenchmarkRoutingByCaddy in package gateway measures Caddy's list of routes.
func BenchmarkRouting(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000, 1_000_000} {
		prefixes := make([]string, n)
		for i := range prefixes {
			prefixes[i] = fmt.Sprintf("/api/v%d/service-%d/resource", i%3+1, i)
		}
		b.Run(fmt.Sprintf("list/routes=%d", n), func(b *testing.B) { benchmarkList(b, prefixes) })
		b.Run(fmt.Sprintf("prefixes/routes=%d", n), func(b *testing.B) { benchmarkRouter(b, prefixes, "") })
		b.Run(fmt.Sprintf("patterns/routes=%d", n), func(b *testing.B) { benchmarkRouter(b, prefixes, "/:id/details") })
	}
}

// requestsTo returns requests to evenly distributed routes. Their number is independent
// of the number of routes, so that only the search differs.
func requestsTo(prefixes []string, rest string) []*http.Request {
	requests := make([]*http.Request, 1024)
	for i := range requests {
		prefix := prefixes[i*len(prefixes)/len(requests)]
		requests[i] = &http.Request{Method: http.MethodGet, URL: &url.URL{Path: prefix + rest}, Header: http.Header{}}
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
			b.Fatal("no route found")
		}
		i++
	}
}

func benchmarkRouter(b *testing.B, prefixes []string, rest string) {
	routes := make([]*Route, len(prefixes))
	for i, prefix := range prefixes {
		routes[i] = &Route{Path: prefix + rest, Index: i}
		routes[i].Pattern, _ = ParsePattern(prefix + rest)
	}
	before := heap()
	rt := New(routes, exact)
	size := float64(heap()-before) / float64(len(routes))
	requests := requestsTo(prefixes, strings.ReplaceAll(rest, ":id", "42"))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		r := requests[i%len(requests)]
		if route, _ := rt.Find(r, r.URL.Path); route == nil {
			b.Fatal("no route found")
		}
		i++
	}
	b.ReportMetric(size, "B/route")
	runtime.KeepAlive(routes)
}

// heap returns the number of allocated bytes.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
