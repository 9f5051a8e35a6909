package gateway

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// BenchmarkRoutingByCaddy measures Caddy's list of routes with path matchers, with the
// routes of BenchmarkRouting.
func BenchmarkRoutingByCaddy(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000, 1_000_000} {
		prefixes := make([]string, n)
		for i := range prefixes {
			prefixes[i] = fmt.Sprintf("/api/v%d/service-%d/resource", i%3+1, i)
		}
		b.Run(fmt.Sprintf("caddy/routes=%d", n), func(b *testing.B) { benchmarkCaddy(b, prefixes) })
	}
}

func benchmarkCaddy(b *testing.B, prefixes []string) {
	var found int
	done := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { found++; return nil })
	respond := caddyhttp.MiddlewareHandler(terminal{done})
	routes := make(caddyhttp.RouteList, len(prefixes))
	for i, prefix := range prefixes {
		match := caddyhttp.MatchPath{prefix + "*"}
		if err := match.Provision(caddy.Context{}); err != nil {
			b.Fatal(err)
		}
		routes[i] = caddyhttp.Route{
			MatcherSets: caddyhttp.MatcherSets{{match}},
			Handlers:    []caddyhttp.MiddlewareHandler{respond},
			Terminal:    true,
		}
		if err := routes[i].ProvisionHandlers(caddy.Context{Context: context.Background()}, nil); err != nil {
			b.Fatal(err)
		}
	}
	handler := routes.Compile(done)
	requests := make([]*http.Request, 1024)
	ctx := context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer())
	for i := range requests {
		prefix := prefixes[i*len(prefixes)/len(requests)]
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: prefix + "/42"}, Header: http.Header{}}
		requests[i] = r.WithContext(ctx)
	}
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

// terminal is a middleware that does not call the next handler.
type terminal struct{ handler caddyhttp.Handler }

func (t terminal) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	return t.handler.ServeHTTP(w, r)
}
