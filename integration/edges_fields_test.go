package integration

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// fieldSet is a named set of recorded header fields.
type fieldSet struct {
	name   string
	fields [][2]string
}

// recordedFields reads the field sets of a file in testdata/fields.
func recordedFields(t *testing.T, file string) (sets []fieldSet) {
	t.Helper()
	for _, section := range recordedSections(t, file) {
		lines := strings.Split(strings.TrimSpace(section), "\n")
		set := fieldSet{name: lines[0]}
		for _, line := range lines[1:] {
			name, value, ok := strings.Cut(line, ": ")
			if !ok {
				t.Fatalf("%s: %q is not a field", file, line)
			}
			set.fields = append(set.fields, [2]string{name, value})
		}
		sets = append(sets, set)
	}
	return sets
}

func recordedSections(t *testing.T, file string) []string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", "fields", file))
	must(t, "reading recorded fields", err)
	return strings.Split(string(content), "\n# ")[1:]
}

// headersOf merges field sets into alternating names and values. Later sets override
// earlier ones, and $N is replaced with 10+number.
func headersOf(number int, sets ...fieldSet) (headers []string) {
	all := make(map[string]string)
	for _, set := range sets {
		for _, field := range set.fields {
			all[http.CanonicalHeaderKey(field[0])] = strings.ReplaceAll(field[1], "$N", strconv.Itoa(10+number))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		headers = append(headers, name, all[name])
	}
	return headers
}

const fieldsGateway = `
server: {trusted_proxies: [127.0.0.1]}
cache: 1h
routes:
  - {path_prefix: /, backend: web}
  - {path_prefix: /key, backend: web, cache: {ttl: 1h, key: "{http.request.header.X-Org-Id}"}}
  - {path_prefix: /ignore, backend: web, cache: {ttl: 1h, ignore_fields: [X-Org-Id, X-Acme-*]}}
  - path_prefix: /constant
    backend: web
    transform: {request: {headers: {set: {X-Org-Id: gateway, Authorization: "Bearer {env.FIELDS_TOKEN}"}}}}
    handle: [{handler: headers, request: {set: {X-Tier: [gold]}}}]
  - {path_prefix: /renamed, backend: web, transform: {request: {headers: {rename: {Cookie: X-Renamed}}}}}
  - path_prefix: /who
    backend: web
    handle:
      - handler: reverse_proxy
        upstreams: [{dial: "$AUTH"}]
        rewrite: {method: GET, uri: /auth}
        handle_response:
          - match: {status_code: [2]}
            routes: [{handle: [{handler: headers, request: {set: {X-Who: ["{http.reverse_proxy.header.X-Who}"]}}}]}]
  - path_prefix: /keys
    backend: web
    api_key: {header: X-Pass, keys: [{name: alice, sha256: ` + secretKeyHash + `}], hide_credentials: true}
backends:
  - {name: web, dial: ["$BACKEND"]}
`

// Responses are shared between requests with header fields of known clients, proxies and
// tracers. A request with an unknown field bypasses the cache, because the backend may
// vary by it. Without this rule, clients with different X-Org-Id fields share responses.
func TestC2FieldsDecideWhoSharesAResponse(t *testing.T) {
	t.Parallel()
	backend := startCacheBackend(t)
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Who", r.Header.Get("User-Agent"))
	}))
	t.Cleanup(auth.Close)
	g := startGateway(t, strings.NewReplacer("$BACKEND", backend.address(), "$AUTH", auth.Listener.Addr().String()).Replace(fieldsGateway), "FIELDS_TOKEN=secret")

	t.Run("recorded requests", func(t *testing.T) {
		for _, client := range recordedFields(t, "clients.txt") {
			for _, proxy := range recordedFields(t, "proxies.txt") {
				for _, tracing := range recordedFields(t, "tracing.txt") {
					what := client.name + "; by " + proxy.name + "; traced by " + tracing.name
					target := "/recorded?" + strings.NewReplacer(" ", "-", ",", "", ";", "").Replace(what)
					first := g.ask(t, "GET", target, "", headersOf(1, client, proxy, tracing)...)
					second := g.ask(t, "GET", target, "", headersOf(2, client, proxy, tracing)...)
					if got := second.header.Get("Cache-Status"); !strings.Contains(got, "hit") || second.body != first.body {
						t.Errorf("%s: the first one is %q, the second one %q", what, first.header.Get("Cache-Status"), got)
					}
				}
			}
		}
	})

	t.Run("hostile requests", func(t *testing.T) {
		chrome := recordedFields(t, "clients.txt")[0]
		for _, section := range recordedSections(t, "hostile.txt") {
			kind, names, _ := strings.Cut(section, "\n")
			for name := range strings.FieldsSeq(names) {
				target := "/hostile/" + name
				g.ask(t, "GET", target, "", headersOf(1, chrome)...) // stores a response
				for _, value := range []string{"alice", "alice", "bob"} {
					headers := append(headersOf(1, chrome), name, value)
					n := backend.asked.Load()
					got := g.ask(t, "GET", target, "", headers...)
					want := `rgate; fwd=bypass; detail="field ` + strings.ToLower(name) + `"`
					if status := got.header.Get("Cache-Status"); status != want || backend.asked.Load() != n+1 {
						t.Errorf("%s of %s: got %q from request %s, want %q", name, value, status, got.body, want)
					}
				}
				if kind != "credentials" {
					continue
				}
				// Credentials bypass the cache even if the response has an explicit
				// lifetime.
				for range 2 {
					n := backend.asked.Load()
					got := g.ask(t, "GET", target+"?cc=max-age=3600", "", append(headersOf(1, chrome), name, "alice")...)
					if backend.asked.Load() != n+1 || strings.Contains(got.header.Get("Cache-Status"), "stored") {
						t.Errorf("%s: what is fresh is shared: %q", name, got.header.Get("Cache-Status"))
					}
				}
			}
		}
	})

	hit := func(t *testing.T, what string, got response, want bool) {
		t.Helper()
		if status := got.header.Get("Cache-Status"); strings.Contains(status, "hit") != want {
			t.Errorf("%s: got %q, want a hit: %t", what, status, want)
		}
	}
	t.Run("public, Vary, key and ignore_fields", func(t *testing.T) {
		for target, others := range map[string]bool{
			"/a?cc=public,max-age=60": true, "/b?cc=s-maxage=60": true, "/c?h=Vary:X-Org-Id": false, "/key": false, "/ignore": true,
		} {
			g.ask(t, "GET", target, "", "X-Org-Id", "alice")
			hit(t, target, g.ask(t, "GET", target, "", "X-Org-Id", "alice"), true)
			hit(t, target+" of another", g.ask(t, "GET", target, "", "X-Org-Id", "bob"), others)
		}
		hit(t, "another ignored field", g.ask(t, "GET", "/ignore", "", "X-Acme-Build", "7"), true)
		hit(t, "a field that is not ignored", g.ask(t, "GET", "/ignore", "", "X-Acme", "7"), false)
	})

	t.Run("fields that handlers set", func(t *testing.T) {
		g.get(t, "/constant/a")
		hit(t, "constants", g.get(t, "/constant/a"), true)
		hit(t, "constants in place of what the client sent", g.ask(t, "GET", "/constant/a", "", "X-Org-Id", "alice", "X-Tier", "1"), true)
		hit(t, "besides them", g.ask(t, "GET", "/constant/a", "", "X-Team", "a"), false)
		hit(t, "a constant of another route", g.ask(t, "GET", "/plain", "", "X-Tier", "gold"), false)
		hit(t, "without it", g.get(t, "/plain?cc=max-age=60"), false)
		for _, target := range []string{"/renamed/a", "/renamed/a?cc=max-age=60"} {
			g.ask(t, "GET", target, "", "Cookie", "alice")
			hit(t, "a renamed cookie", g.ask(t, "GET", target, "", "Cookie", "alice"), false)
		}
		for _, target := range []string{"/who/a", "/who/a?cc=max-age=60"} {
			g.ask(t, "GET", target, "", "User-Agent", "alice")
			hit(t, "what forward_auth says of the same user", g.ask(t, "GET", target, "", "User-Agent", "alice"), false)
			hit(t, "what forward_auth says of another user", g.ask(t, "GET", target, "", "User-Agent", "bob"), false)
			g.ask(t, "GET", "/keys"+target, "", "X-Pass", secretKey)
			hit(t, "a key that is taken away", g.ask(t, "GET", "/keys"+target, "", "X-Pass", secretKey), false)
		}
	})

	t.Run("another proxy", func(t *testing.T) {
		g.ask(t, "GET", "/links?cc=max-age=60", "", "X-Forwarded-Prefix", "/a")
		hit(t, "another prefix", g.ask(t, "GET", "/links?cc=max-age=60", "", "X-Forwarded-Prefix", "/b"), false)
		hit(t, "the same prefix", g.ask(t, "GET", "/links?cc=max-age=60", "", "X-Forwarded-Prefix", "/a"), true)
		hit(t, "another host", g.ask(t, "GET", "/links?cc=max-age=60", "", "X-Forwarded-Prefix", "/a", "Forwarded", `for=1.1.1.1;Host="evil.test"`), false)
		hit(t, "another port", g.ask(t, "GET", "/links?cc=max-age=60", "", "X-Forwarded-Prefix", "/a", "X-Forwarded-Port", "1"), false)
	})
}

// The rules also apply to policies without a gateway, where header fields come from
// untrusted peers.
func TestC2HoldsInASite(t *testing.T) {
	t.Parallel()
	backend := startCacheBackend(t)
	site := launch(t, "Caddyfile", strings.ReplaceAll(`{
	admin localhost:$ADMIN
}
:$PORT {
	request_header X-Env production
	rgate_cache 1h {
		ignore_fields X-Acme-*
	}
	reverse_proxy $BACKEND
}
`, "$BACKEND", backend.address()), nil, "run", "--config", "$FILE")
	site.get(t, "/a").wants(t, "first", 200, "1 for ", "uri-miss; stored")
	site.ask(t, "GET", "/a", "", "X-Acme-Build", "1").wants(t, "second", 200, "1 for ", "hit")
	site.ask(t, "GET", "/a", "", "X-Env", "test").wants(t, "a constant in place of the client's", 200, "1 for ", "hit")
	site.ask(t, "GET", "/a", "", "X-API-Key", "a").wants(t, "credentials", 200, "2 for ", `fwd=bypass; detail="field x-api-key"`)
	site.ask(t, "GET", "/a", "", "X-Org-Id", "a").wants(t, "unknown", 200, "3 for ", `fwd=bypass; detail="field x-org-id"`)
	site.get(t, "/b?cc=public,max-age=60").wants(t, "before them", 200, "4 for ", "uri-miss; stored")
	for _, name := range []string{"Forwarded", "X-Forwarded-Prefix", "X-Host", "X-Forwarded-Scheme"} {
		site.ask(t, "GET", "/b?cc=public,max-age=60", "", name, "host=evil.test").wants(t, name+", which the site does not see", 200, "4 for ", "hit")
	}
}

// Responses stored for fallbacks follow the same sharing rules.
func TestC4KeptResponsesAreNotGivenToOthers(t *testing.T) {
	t.Parallel()
	backend := startCacheBackend(t)
	g := startGateway(t, strings.ReplaceAll(`
routes:
  - {path_prefix: /, backend: web}
  - {path_prefix: /keyed, backend: keyed}
  - {path_prefix: /ignoring, backend: ignoring}
backends:
  - {name: web, dial: ["$BACKEND"], fallback: {cached: 10m, statuses: [5xx]}}
  - {name: keyed, dial: ["$BACKEND"], fallback: {cached: 10m, statuses: [5xx], key: "{http.request.header.X-Org-Id}"}}
  - {name: ignoring, dial: ["$BACKEND"], fallback: {cached: 10m, statuses: [5xx], ignore_fields: [X-Org-Id]}}
`, "$BACKEND", backend.address()))

	alice, none := []string{"X-Org-Id", "alice"}, []string(nil)
	kept := []struct {
		target  string
		by      []string
		given   [][]string // requests that receive the stored response
		refused [][]string
	}{
		{"/unknown", alice, nil, [][]string{alice, {"X-Org-Id", "bob"}, none}},
		{"/plain", none, [][]string{none, {"User-Agent", "b", "X-Request-Id", "1"}}, [][]string{{"X-Org-Id", "bob"}, {"Cookie", "a"}, {"X-Api-Key", "a"}}},
		{"/credentials", []string{"X-Api-Key", "alice"}, nil, [][]string{{"X-Api-Key", "alice"}, none}},
		{"/public?cc=public", alice, [][]string{alice, none, {"X-Org-Id", "bob"}}, nil},
		{"/vary?h=Vary:X-Org-Id", alice, [][]string{alice}, [][]string{{"X-Org-Id", "bob"}, none}},
		{"/language", []string{"Accept-Language", "de"}, [][]string{{"Accept-Language", "DE"}}, [][]string{{"Accept-Language", "en"}, none}},
		{"/coding?h=Vary:Accept-Encoding", []string{"Accept-Encoding", "gzip, br"}, [][]string{{"Accept-Encoding", "br,sdch, gzip"}}, [][]string{{"Accept-Encoding", "br"}}},
		{"/keyed", alice, [][]string{alice}, [][]string{{"X-Org-Id", "bob"}, none}},
		{"/ignoring", alice, [][]string{alice, {"X-Org-Id", "bob"}, none}, [][]string{{"X-Team", "a"}}},
	}
	for _, k := range kept {
		if got := g.ask(t, "GET", k.target, "", k.by...); got.status != 200 {
			t.Errorf("%s: got %d", k.target, got.status)
		}
	}
	backend.status.Store(503)
	for _, k := range kept {
		for _, by := range k.given {
			if got := g.ask(t, "GET", k.target, "", by...); got.status != 200 || got.by() != "cached" {
				t.Errorf("%s of %v: %v got %d by %q", k.target, k.by, by, got.status, got.by())
			}
		}
		for _, by := range k.refused {
			if got := g.ask(t, "GET", k.target, "", by...); got.status != 503 || got.by() != "" {
				t.Errorf("%s of %v: %v got %d by %q: %s", k.target, k.by, by, got.status, got.by(), got.body)
			}
		}
	}
}

// Ranges are parsed as in RFC 9110, section 14.1.2, even where net/http differs. rgate
// rejects invalid ranges, which section 14.2 allows.
func TestC5RangesOfStoredResponses(t *testing.T) {
	t.Parallel()
	const body = "0123456789"
	failing := make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-failing:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			_, _ = w.Write([]byte(body))
		}
	}))
	t.Cleanup(backend.Close)
	g := startGateway(t, strings.ReplaceAll(`
routes:
  - {path_prefix: /cache, backend: web, cache: 1h}
  - {path_prefix: /kept, backend: kept}
backends:
  - {name: web, dial: ["$BACKEND"]}
  - {name: kept, dial: ["$BACKEND"], fallback: {cached: 10m, statuses: [5xx]}}
`, "$BACKEND", backend.Listener.Addr().String()))
	g.get(t, "/cache")
	g.get(t, "/kept")
	close(failing)
	for _, target := range []string{"/cache", "/kept"} {
		for field, want := range map[string]struct {
			status       int
			content, got string
		}{
			"bytes=0-99999999999999999999":         {206, "bytes 0-9/10", body},
			"bytes=8-9223372036854775807":          {206, "bytes 8-9/10", "89"},
			"bytes=8-18446744073709551617":         {206, "bytes 8-9/10", "89"},
			"bytes=-99999999999999999999":          {206, "bytes 0-9/10", body},
			"bytes=-20":                            {206, "bytes 0-9/10", body},
			"bytes=000000000000000000001-02":       {206, "bytes 1-2/10", "12"},
			"bytes=-0, 1-2":                        {206, "bytes 1-2/10", "12"},
			"BYTES= 1 - 2 ,":                       {206, "bytes 1-2/10", "12"},
			"bytes=-0":                             {416, "bytes */10", "*"},
			"bytes=-00":                            {416, "bytes */10", "*"},
			"bytes=10-":                            {416, "bytes */10", "*"},
			"bytes=99999999999999999999-":          {416, "bytes */10", "*"},
			"bytes=--1":                            {416, "*", "*"},
			"bytes=+1-2":                           {416, "*", "*"},
			"bytes=2-1":                            {416, "*", "*"},
			"bytes=1-2x":                           {416, "*", "*"},
			"lines=1-2":                            {200, "", body},
			"bytes=" + strings.Repeat("0-9,", 500): {200, "", body},
		} {
			got := g.ask(t, "GET", target, "", "Range", field)
			if content := got.header.Get("Content-Range"); got.status != want.status ||
				content != want.content && want.content != "*" || got.body != want.got && want.got != "*" {
				t.Errorf("%s of %s: got %d %q %q, want %v", field[:min(40, len(field))], target, got.status, content, got.body, want)
			}
		}
	}
}

// Equivalent values of Accept-Encoding select the same response.
func TestC6CodingsAreComparedByMeaning(t *testing.T) {
	t.Parallel()
	backend := startCacheBackend(t)
	g := startGateway(t, strings.ReplaceAll(`
cache: true
routes: [{path_prefix: /, backend: web}]
backends: [{name: web, dial: ["$BACKEND"]}]
`, "$BACKEND", backend.address()))
	const target = "/?cc=max-age=3600&h=Vary:Accept-Encoding"
	for _, same := range [][]string{
		{"gzip, br", "br, gzip", "br,gzip", "GZIP, Br", "gzip;q=1, br;q=1.000", "gzip, br, sdch", "x-gzip, br, foo;q=0.3", "gzip, gzip, br", "br , gzip ,"},
		{"gzip", "gzip, sdch"},
		{"gzip, br, identity;q=0", "identity;q=0.000, br, gzip"},
		{"gzip, br;q=0", "br;q=0.0, gzip"},
		{"gzip, *", "*, gzip"},
		{"gzip, *;q=0"},
		{"gzip;q=0.5, br", "br, gzip;q=0.50"},
		{"*"},
		{"identity"},
	} {
		first := g.ask(t, "GET", target, "", "Accept-Encoding", same[0])
		if status := first.header.Get("Cache-Status"); !strings.Contains(status, "stored") {
			t.Errorf("%q is taken for another one: %q", same[0], status)
		}
		for _, other := range same[1:] {
			got := g.ask(t, "GET", target, "", "Accept-Encoding", other)
			got.wants(t, fmt.Sprintf("%q after %q", other, same[0]), 200, first.body, "hit")
		}
	}
}

// Errors are stored for a tenth of ttl by default, or as set in ttl_by_status.
func TestC7ErrorsAreStoredForAShortTime(t *testing.T) {
	t.Parallel()
	backend := startCacheBackend(t)
	g := startGateway(t, strings.ReplaceAll(`
routes:
  - {path_prefix: /, backend: web, cache: 1h}
  - {path_prefix: /own, backend: web, cache: {ttl: 1h, ttl_by_status: {404: 30m, 4xx: 20m, 501: 0s, 302: 10m}}}
backends: [{name: web, dial: ["$BACKEND"]}]
`, "$BACKEND", backend.address()))
	for target, want := range map[string]struct{ least, most int }{
		"/?status=200": {3500, 3600}, "/?status=301": {3500, 3600}, "/?status=404": {1, 10}, "/?status=410": {1, 10}, "/?status=501": {1, 10},
		"/?status=404&cc=max-age=600": {590, 600}, "/own?status=404": {1700, 1800}, "/own?status=410": {1100, 1200},
		"/own?status=302": {500, 600}, "/own?status=200": {3500, 3600},
	} {
		g.get(t, target)
		status, ttl := g.get(t, target).header.Get("Cache-Status"), -1
		if _, err := fmt.Sscanf(status, "rgate; hit; ttl=%d", &ttl); err != nil || ttl < want.least-1 || ttl > want.most {
			t.Errorf("%s: got %q, want a ttl from %d to %d", target, status, want.least, want.most)
		}
	}
	for _, target := range []string{"/own?status=501", "/own?status=403", "/?status=302", "/?status=500"} {
		g.get(t, target)
		if status := g.get(t, target).header.Get("Cache-Status"); status != "rgate; fwd=uri-miss" {
			t.Errorf("%s: got %q", target, status)
		}
	}
	if !strings.Contains(g.output.String(), "errors such as 404 are fresh for a tenth of ttl") {
		t.Error("the change is not announced")
	}
}
