package integration

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

// statefulBackend holds requests to /hold, fails with the status in ?status, and counts
// requests.
func statefulBackend(t testing.TB) (dial string, requests func() int, holding func() int) {
	b := startEndlessBackend(t)
	address, counter := testkit.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/hold"):
			r.URL.Path = "/hold"
			b.ServeHTTP(w, r)
		case strings.HasSuffix(r.URL.Path, "/fail"):
			w.WriteHeader(http.StatusInternalServerError)
		default:
			_, _ = io.WriteString(w, "ok")
		}
	})
	return address, func() int { return int(counter.Load()) }, func() int { return int(b.holding.Load()) }
}

// hold starts a request that is in flight until the returned function is called.
func (g *gateway) hold(t testing.TB, host, path string, holding func() int) (end func()) {
	t.Helper()
	before := holding()
	conn, _ := rawStart(t, g, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host), "")
	testkit.Eventually(t, "the request to "+path+" is in flight", func() bool { return holding() == before+1 })
	return func() { _ = conn.Close() }
}

// An unnamed rgate_concurrency of a site lost its requests in flight at a reload, so that
// two were in flight at once. The position of a policy identifies its state.
func TestF7UnnamedPoliciesKeepTheirStateAtAReload(t *testing.T) {
	t.Parallel()
	dial, requests, holding := statefulBackend(t)
	var blocks strings.Builder
	for path, directive := range map[string]string{
		"concurrency": "1", "rate_limit": "1 1h", "throttle": "1 1h {\nmax_wait 1ms\n}", "circuit_breaker": "{\nfailures 1\nrecovery 1h\n}", "cache": "1h",
	} {
		fmt.Fprintf(&blocks, "handle /%s/* {\nrgate_%[1]s %s\nreverse_proxy %s\n}\n", path, directive, dial)
	}
	site := blocks.String()
	const frame = `{
	admin localhost:$ADMIN
}
%s
http://a.test:$PORT {
	%s
	handle_path /first/* {
		%s
	}
	%s
}
http://b.test:$PORT {
	rgate_concurrency 1
	reverse_proxy %s
}
:$PORT {
	%s
	rgate {
		%s
		backend web {
			dial %[5]s
		}
		backend limited {
			dial %[5]s
			concurrency 1
		}
		route /route web {
			concurrency 1
		}
		route /limited limited
		group /group {
			concurrency 1
			route /x grouped
		}
		backend grouped {
			dial %[5]s
		}
		concurrency 1
		route /gateway other
		backend other {
			dial %[5]s
		}
	}
}
`
	plain := "rgate_concurrency 1\nrgate_rate_limit 1 1h\nreverse_proxy " + dial
	first := "rgate_concurrency 1\nreverse_proxy " + dial
	before := fmt.Sprintf(frame, "", "", first, site, dial, "", "")
	sites := fmt.Sprintf("http://0.test:$PORT {\n%s\n}\n:%d {\n%[1]s\n}", plain, freePort(t))
	withSites := fmt.Sprintf(frame, sites, "", first, site, dial, "", "")
	withAll := fmt.Sprintf(frame, sites, "header X-A b\nhandle /0/* {\n"+plain+"\n}", first, site+"\nhandle {\n"+plain+"\n}", dial, "header X-A b",
		"route /0 zero {\nconcurrency 1\n}\nbackend zero {\ndial "+dial+"\nconcurrency 1\n}")
	g := launch(t, "Caddyfile", before, nil, "run", "--config", "$FILE")
	ask := func(host, path string) response {
		request := g.request(t, "GET", path, "")
		request.Host = host
		got, err := do(g.client, request)
		must(t, "asking", err)
		return got
	}
	check := func(when string, want int, all map[string]string) {
		t.Helper()
		for path, host := range all {
			seen := requests()
			if got := ask(host, path); got.status != want || want >= 400 && requests() > seen {
				t.Errorf("%s, %s%s: got %d with %d requests to the backend, want %d without any", when, host, path, got.status, requests()-seen, want)
			}
		}
	}
	concurrent := map[string]string{
		"/concurrency/x": "a.test", "/x": "b.test", "/gateway": "x", "/group/x": "x", "/route/x": "x", "/limited/x": "x", "/first/x": "a.test",
	}
	var end []func()
	for path, host := range concurrent {
		end = append(end, g.hold(t, host, strings.TrimSuffix(path, "/x")+"/x/hold", holding))
	}
	for _, path := range []string{"/rate_limit/x", "/throttle/x", "/cache/x"} {
		if got := ask("a.test", path); got.status != 200 {
			t.Fatalf("%s: got %d", path, got.status)
		}
	}
	if got := ask("a.test", "/circuit_breaker/fail"); got.status != 500 {
		t.Fatalf("the failure got %d", got.status)
	}
	limited := map[string]string{"/rate_limit/x": "a.test", "/throttle/x": "a.test"}
	open := map[string]string{"/circuit_breaker/x": "a.test"}
	for i, config := range []string{before, withSites, withAll, before} {
		when := fmt.Sprintf("after %d reloads", i)
		if i > 0 {
			g.write(t, config)
			if done := rgate(t, nil, "reload", "-c", g.file); done.code != 0 {
				t.Fatalf("reloading: %s", done.stderr)
			}
		}
		check(when, 503, concurrent)
		check(when, 503, open)
		check(when, 429, limited)
		if i < 2 { // a change of the site empties the cache
			seen := requests()
			if got := ask("a.test", "/cache/x"); got.status != 200 || requests() > seen {
				t.Errorf("%s: the cached response got %d with %d requests to the backend", when, got.status, requests()-seen)
			}
		}
	}
	for _, end := range end {
		end()
	}
	testkit.Eventually(t, "the requests have ended", func() bool { return holding() == 0 && ask("b.test", "/x").status == 200 })
	check("when the requests have ended", 200, concurrent)
}
