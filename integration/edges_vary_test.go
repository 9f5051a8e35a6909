package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

func TestC3FieldsOfProxiesArePartOfTheKey(t *testing.T) {
	t.Parallel()
	dial := startSeeing(t)
	g := launch(t, "Caddyfile", strings.ReplaceAll(`{
	admin localhost:$ADMIN
	servers {
		trusted_proxies static `+proxyAddress+`
	}
}
http://gateway.test:$PORT {
	rgate {
		cache
		backend web {
			dial $DIAL
		}
		route / web
	}
}
http://plain.test:$PORT {
	rgate_cache
	reverse_proxy $DIAL
}
`, "$DIAL", dial), nil, "run", "--config", "$FILE")
	stranger, proxy := clientFrom(t, "127.0.0.1"), clientFrom(t, proxyAddress)
	fields := [][]string{
		{"Forwarded", "host=evil.test"}, {"Forwarded", `for=_x;proto=https;host="evil.test:1"`}, {"X-Forwarded-Port", "666"},
		{"X-Forwarded-Prefix", "/evil"}, {"X-Host", "evil.test"}, {"X-Original-Host", "evil.test"}, {"X-Original-URL", "/evil"},
		{"X-Forwarded-Scheme", "https"}, {"X-Forwarded-Ssl", "on"}, {"Front-End-Https", "on"}, {"X-Url-Scheme", "https"},
	}
	trusted := slices.Concat(fields, [][]string{{"X-Forwarded-Proto", "https"}, {"X-Forwarded-Host", "evil.test"}})
	for _, site := range []string{"gateway.test", "plain.test"} {
		for who, client := range map[string]*http.Client{"a stranger": stranger, "a trusted proxy": proxy} {
			all := fields
			if client == proxy {
				all = trusted
			}
			for i, field := range all {
				target := fmt.Sprintf("/%d/%s?cache", i, strings.Fields(who)[1])
				g.askBy(t, client, target, append([]string{"Host", site}, field...)...)
				after := g.askBy(t, client, target, "Host", site)
				if s := seenIn(t, "without the field", after); strings.Contains(fmt.Sprint(s.Header), "evil") || s.Header.Get("X-Forwarded-Port") == "666" {
					t.Errorf("%s: what %s got for %v is served without it: %s", site, who, field, after.body)
				}
				if again := g.askBy(t, client, target, "Host", site); !strings.Contains(again.header.Get("Cache-Status"), "hit") {
					t.Errorf("%s: after %v, Cache-Status is %q, want a hit", site, field, again.header.Get("Cache-Status"))
				}
			}
		}
		// Client addresses in header fields are not part of the cache key.
		g.askBy(t, proxy, "/addresses?cache", "Host", site, "X-Forwarded-For", "192.0.2.1", "Forwarded", "for=192.0.2.1")
		if got := g.askBy(t, proxy, "/addresses?cache", "Host", site, "X-Forwarded-For", "192.0.2.2", "Forwarded", "for=192.0.2.2"); !strings.Contains(got.header.Get("Cache-Status"), "hit") {
			t.Errorf("%s: another client of the proxy gets Cache-Status %q, want a hit", site, got.header.Get("Cache-Status"))
		}
	}
}

// Vary compares the fields that the backend receives, including those set only by
// reverse_proxy.
func TestC3VaryMeansWhatBackendsGet(t *testing.T) {
	t.Parallel()
	var failing atomic.Bool
	first, release := make(chan struct{}, 1), make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", r.URL.Query().Get("vary"))
		w.Header().Set("Cache-Control", "public, max-age=60")
		switch {
		case failing.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/shared":
			select {
			case first <- struct{}{}:
				select { // gives the second request time to join
				case <-release:
				case <-r.Context().Done():
				}
			default:
			}
		}
		_, _ = fmt.Fprint(w, r.Header.Get(r.URL.Query().Get("vary"))) // fails if the gateway has disconnected
	}))
	t.Cleanup(backend.Close)
	g := launch(t, "Caddyfile", strings.ReplaceAll(`{
	admin localhost:$ADMIN
	servers {
		trusted_proxies static `+proxyAddress+`
	}
}
http://gateway.test:$PORT {
	rgate {
		backend web {
			dial $DIAL
		}
		route /cached web {
			cache
		}
		route /shared web {
			coalesce
		}
		route /kept web {
			fallback {
				cached 1h
			}
		}
	}
}
http://plain.test:$PORT {
	rgate_coalesce
	rgate_fallback {
		cached 1h
	}
	rgate_cache
	reverse_proxy $DIAL
}
http://set.test:$PORT {
	rgate_cache
	reverse_proxy $DIAL {
		header_up X-Tenant {header.Via}
	}
}
`, "$DIAL", backend.Listener.Addr().String()), nil, "run", "--config", "$FILE")
	one, other, proxy := clientFrom(t, "127.0.0.1"), clientFrom(t, "127.0.0.3"), clientFrom(t, proxyAddress)
	clients := []struct {
		*http.Client
		said, address, host string
	}{
		{one, "127.0.0.3", "127.0.0.1", ""}, {other, "127.0.0.1", "127.0.0.3", ""}, {one, "", "127.0.0.1", ""},
		{proxy, "192.0.2.1", "192.0.2.1, " + proxyAddress, "a.test"}, {proxy, "192.0.2.2", "192.0.2.2, " + proxyAddress, "b.test"}, {proxy, "", proxyAddress, ""},
	}
	ask := func(site, target string, i int) response {
		headers := []string{"Host", site}
		if clients[i].said != "" {
			headers = append(headers, "X-Forwarded-For", clients[i].said)
		}
		if clients[i].host != "" {
			headers = append(headers, "X-Forwarded-Host", clients[i].host)
		}
		return g.askBy(t, clients[i].Client, target, headers...)
	}

	for _, target := range []string{"gateway.test /cached?", "gateway.test /kept?", "plain.test /cached?"} {
		site, path, _ := strings.Cut(target, " ")
		for round := range 3 {
			failing.Store(round == 2 && path == "/kept?")
			for i, c := range clients {
				if got := ask(site, path+"vary=X-Forwarded-For", i); got.body != c.address {
					t.Errorf("%s, round %d: client %d gets what the backend has for %q, want %q", target, round, i, got.body, c.address)
				} else if status := got.header.Get("Cache-Status"); path == "/cached?" && round > 0 && !strings.Contains(status, "hit") {
					t.Errorf("%s: client %d asks again and gets Cache-Status %q, want a hit", target, i, status)
				}
				want := c.host
				if want == "" {
					want = fmt.Sprintf("%s:%d", site, g.port)
				}
				if got := g.askBy(t, c.Client, path+"vary=X-Forwarded-Host", "Host", fmt.Sprintf("%s:%d", site, g.port), "X-Forwarded-Host", c.host); got.body != want && c.Client == proxy {
					t.Errorf("%s: client %d gets what the backend has for the host %q, want %q", target, i, got.body, want)
				}
			}
		}
		failing.Store(false)
	}
	if got := ask("gateway.test", "/cached?vary=X-Real-IP", 0).body + " " + ask("gateway.test", "/cached?vary=X-Real-IP", 1).body; got != "127.0.0.1 127.0.0.3" {
		t.Errorf("two clients get what the backend has for X-Real-IP %s", got)
	}

	bodies := [2]chan string{make(chan string, 1), make(chan string, 1)}
	share := func(i int) { bodies[i] <- ask("gateway.test", "/shared?vary=X-Forwarded-For", i).body }
	go share(0)
	testkit.Eventually(t, "the first request has come", func() bool { return len(first) == 1 })
	go share(1)
	testkit.Eventually(t, "the second request has come", func() bool { return g.metric(t, "rgate_requests_in_flight") == 2 })
	close(release)
	if a, b := <-bodies[0], <-bodies[1]; a != "127.0.0.1" || b != "127.0.0.3" {
		t.Errorf("two clients that ask at once get what the backend has for %q and %q", a, b)
	}

	// The values that reverse_proxy sets for other fields are unknown to the cache.
	for _, via := range []string{"1.1 a", "1.1 b"} {
		if got := g.askBy(t, one, "/?vary=X-Tenant", "Host", "set.test", "Via", via); got.body != via || strings.Contains(got.header.Get("Cache-Status"), "stored") {
			t.Errorf("a field that header_up sets: for %q, the response is %q with Cache-Status %q", via, got.body, got.header.Get("Cache-Status"))
		}
	}
}
