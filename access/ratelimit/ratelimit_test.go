package ratelimit

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
)

// rateContext returns the context of a configuration that is used until the test ends.
func rateContext(t testing.TB) caddy.Context {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	return ctx
}

// rateLoad loads a policy from JSON, like Caddy.
func rateLoad[T any](t testing.TB, ctx caddy.Context, name, options string) T {
	t.Helper()
	module, err := ctx.LoadModuleByID("http.handlers."+name, json.RawMessage(options))
	if err != nil {
		t.Fatal(err)
	}
	return module.(T)
}

// rateRequest returns a request as handlers receive it. headers contains alternating
// names and values.
func rateRequest(remote string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "http://example.com/", nil)
	r.RemoteAddr = remote
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	repl := caddy.NewReplacer()
	repl.Map(func(name string) (any, bool) { // added by the server
		if name == "http.request.remote.host" {
			host, _, _ := net.SplitHostPort(remote)
			return host, true
		}
		field, ok := strings.CutPrefix(name, "http.request.header.")
		return r.Header.Get(field), ok
	})
	return caddyhttp.PrepareRequest(r, repl, httptest.NewRecorder(), new(caddyhttp.Server))
}

var rateOK = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })

// rateServe sends a request through a policy.
func rateServe(t testing.TB, p caddyhttp.MiddlewareHandler, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	if err := p.ServeHTTP(w, r, rateOK); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestRateLimitHeaders(t *testing.T) {
	p := rateLoad[*RateLimit](t, rateContext(t), "rgate_rate_limit", `{"requests": 1000, "window": "60s"}`)
	for n := 999; n >= 0; n-- {
		w := rateServe(t, p, rateRequest("203.0.113.7:1"))
		if w.Code != http.StatusOK || w.Header().Get("RateLimit-Remaining") != strconv.Itoa(n) {
			t.Fatalf("%d should remain: got %d, %v", n, w.Code, w.Header())
		}
		if h := w.Header(); h.Get("RateLimit-Limit") != "1000" || h.Get("RateLimit-Reset") != "60" || h.Get("Retry-After") != "" {
			t.Fatalf("got %v", h)
		}
	}
	w := rateServe(t, p, rateRequest("203.0.113.7:2"))
	h := w.Header()
	if w.Code != http.StatusTooManyRequests || h.Get("RateLimit-Limit") != "1000" || h.Get("RateLimit-Remaining") != "0" {
		t.Errorf("request 1001: got %d, %v", w.Code, h)
	}
	if retry := h.Get("Retry-After"); retry != "60" || h.Get("RateLimit-Reset") != retry {
		t.Errorf("request 1001 may be sent again after %q, %q", retry, h.Get("RateLimit-Reset"))
	}
	if w.Body.String() != `{"error":"Too Many Requests","status":429}` || h.Get("Content-Type") != "application/json" {
		t.Errorf("request 1001: got %q, %q", h.Get("Content-Type"), w.Body)
	}
	if w := rateServe(t, p, rateRequest("203.0.113.7:2", "Accept", "text/html, */*")); w.Body.String() != "Too Many Requests\n" {
		t.Errorf("a browser gets %q", w.Body)
	}
	if w := rateServe(t, p, rateRequest("203.0.113.8:1")); w.Code != http.StatusOK {
		t.Errorf("another client: got %d", w.Code)
	}
}

func TestRateLimitHidesItsFields(t *testing.T) {
	p := rateLoad[*RateLimit](t, rateContext(t), "rgate_rate_limit", `{"requests": 1, "window": "1h", "hide_headers": true}`)
	for _, want := range []int{1, 2} {
		w := rateServe(t, p, rateRequest("203.0.113.7:1"))
		fields := 0
		for name := range w.Header() {
			if strings.HasPrefix(strings.ToLower(name), "ratelimit-") {
				t.Errorf("there is %s", name)
			}
			if name == "Retry-After" {
				fields++
			}
		}
		if fields != want-1 {
			t.Errorf("request %d: Retry-After is there %d times", want, fields)
		}
	}
}

// TestHeadersAreOfTheTightestPolicy checks that, with several policies, the header fields
// describe the policy with the fewest remaining requests.
func TestHeadersAreOfTheTightestPolicy(t *testing.T) {
	ctx := rateContext(t)
	wide := rateLoad[*RateLimit](t, ctx, "rgate_rate_limit", `{"requests": 1000, "window": "1h"}`)
	narrow := rateLoad[*RateLimit](t, ctx, "rgate_rate_limit", `{"requests": 2, "window": "1h"}`)
	for _, order := range [][2]*RateLimit{{wide, narrow}, {narrow, wide}} {
		w := httptest.NewRecorder()
		r := rateRequest("203.0.113.7:1")
		err := order[0].ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			return order[1].ServeHTTP(w, r, rateOK)
		}))
		if err != nil || w.Header().Get("RateLimit-Limit") != "2" {
			t.Errorf("got %v, %v", w.Header(), err)
		}
	}
}

func TestRateLimitKeys(t *testing.T) {
	for _, test := range []struct {
		name, options string
		same          []*http.Request // requests with the same key
		other         *http.Request
	}{
		{"client address", ``,
			[]*http.Request{rateRequest("203.0.113.7:1"), rateRequest("203.0.113.7:2"), rateRequest("[::ffff:203.0.113.7]:1")}, rateRequest("203.0.113.8:1")},
		{"IPv6 network", ``,
			[]*http.Request{rateRequest("[2001:db8:0:1::1]:1"), rateRequest("[2001:db8:0:1:ffff::2]:1")}, rateRequest("[2001:db8:0:2::1]:1")},
		{"IPv6 zone", ``,
			[]*http.Request{rateRequest("[fe80::1%eth0]:1"), rateRequest("[fe80::2%eth0]:1")}, rateRequest("[fe81::1%eth0]:1")},
		{"IPv6 network of another size", `"ipv6_prefix": 48`,
			[]*http.Request{rateRequest("[2001:db8:0:1::1]:1"), rateRequest("[2001:db8:0:ffff::1]:1")}, rateRequest("[2001:db8:1:1::1]:1")},
		{"IPv6 address", `"ipv6_prefix": 128`,
			[]*http.Request{rateRequest("[2001:db8::1]:1"), rateRequest("[2001:db8:0::1]:2")}, rateRequest("[2001:db8::2]:1")},
		{"address of the connection", `"key": "{http.request.remote.host}"`,
			[]*http.Request{rateRequest("[2001:db8:0:1::1]:1"), rateRequest("[2001:db8:0:1::2]:1")}, rateRequest("[2001:db8:0:2::1]:1")},
		{"header", `"key": "{http.request.header.X-User}"`,
			[]*http.Request{rateRequest("203.0.113.7:1", "X-User", "alice"), rateRequest("203.0.113.8:1", "X-User", "alice")}, rateRequest("203.0.113.7:1", "X-User", "bob")},
		{"an empty key is the address", `"key": "{http.request.header.X-User}"`,
			[]*http.Request{rateRequest("[2001:db8:0:1::1]:1"), rateRequest("[2001:db8:0:1::2]:1")}, rateRequest("[2001:db8:0:2::1]:1")},
		{"an address as a key is not that of a client", `"key": "{http.request.header.X-User}"`,
			[]*http.Request{rateRequest("203.0.113.7:1"), rateRequest("203.0.113.7:1")}, rateRequest("203.0.113.9:1", "X-User", "203.0.113.7")},
		{"text", `"key": "{http.request.header.X-User}/{http.request.header.X-Org}"`,
			[]*http.Request{rateRequest("203.0.113.7:1", "X-User", "a", "X-Org", "b"), rateRequest("203.0.113.8:1", "X-User", "a", "X-Org", "b")},
			rateRequest("203.0.113.7:1", "X-User", "a")},
	} {
		t.Run(test.name, func(t *testing.T) {
			options := `{"requests": ` + strconv.Itoa(len(test.same)) + `, "window": "1h"`
			if test.options != "" {
				options += ", " + test.options
			}
			p := rateLoad[*RateLimit](t, rateContext(t), "rgate_rate_limit", options+"}")
			for i, r := range test.same {
				if w := rateServe(t, p, r); w.Code != http.StatusOK || w.Header().Get("RateLimit-Remaining") != strconv.Itoa(len(test.same)-1-i) {
					t.Errorf("request %d: got %d, %v", i+1, w.Code, w.Header())
				}
			}
			if w := rateServe(t, p, test.same[0]); w.Code != http.StatusTooManyRequests {
				t.Errorf("the last request: got %d", w.Code)
			}
			if w := rateServe(t, p, test.other); w.Code != http.StatusOK {
				t.Errorf("another key: got %d", w.Code)
			}
			// Keys in Redis are distinct in the same way.
			texts := make(map[string]bool)
			for _, r := range test.same {
				texts[p.text(r)] = true
			}
			if len(texts) != 1 || texts[p.text(test.other)] {
				t.Errorf("the texts are %v, and of another key %q", texts, p.text(test.other))
			}
		})
	}
}

func TestRateLimitCosts(t *testing.T) {
	p := rateLoad[*RateLimit](t, rateContext(t), "rgate_rate_limit", `{"requests": 100, "window": "1h", "cost": "{http.request.header.X-Cost}"}`)
	for _, test := range []struct {
		cost      string
		status    int
		remaining string
	}{
		{"10", 200, "90"}, {"", 200, "89"}, {"0", 200, "88"}, {"-5", 200, "87"}, {"x", 200, "86"}, {"1.5", 200, "85"},
		{"86", 429, "85"}, {"99999999999999999999999", 429, "85"}, {"-99999999999999999999999", 200, "84"}, {"84", 200, "0"}, {"1", 429, "0"},
	} {
		w := rateServe(t, p, rateRequest("203.0.113.7:1", "X-Cost", test.cost))
		if w.Code != test.status || w.Header().Get("RateLimit-Remaining") != test.remaining {
			t.Errorf("cost %q: got %d, %s remain, want %d, %s", test.cost, w.Code, w.Header().Get("RateLimit-Remaining"), test.status, test.remaining)
		}
	}
	p = rateLoad[*RateLimit](t, rateContext(t), "rgate_rate_limit", `{"requests": 100, "window": "1h", "cost": 60}`)
	for _, status := range []int{200, 429} {
		if w := rateServe(t, p, rateRequest("203.0.113.7:1")); w.Code != status {
			t.Errorf("a fixed cost: got %d, want %d", w.Code, status)
		}
	}
}

// TestRateLimitIdentity checks which policies share counters and which counters survive a
// reload.
func TestRateLimitIdentity(t *testing.T) {
	const plain, other = `{"requests": 3, "window": "1h"}`, `{"requests": 4, "window": "1h"}`
	const named, changed = `{"requests": 3, "window": "1h", "name": "all"}`, `{"requests": 4, "window": "1h", "name": "all"}`
	const scarce = `{"requests": 5, "window": "1h", "max_keys": 1000}`
	used := func(p *RateLimit) int {
		w := rateServe(t, p, rateRequest("203.0.113.7:1"))
		remaining, _ := strconv.Atoi(w.Header().Get("RateLimit-Remaining"))
		limit, _ := strconv.Atoi(w.Header().Get("RateLimit-Limit"))
		return limit - remaining
	}
	load := func(ctx caddy.Context, scope, options string) *RateLimit {
		if level, name, ok := strings.Cut(scope, " "); ok {
			ctx = policy.WithScope(ctx, policy.Scope{Level: level, Name: name})
		}
		return rateLoad[*RateLimit](t, ctx, "rgate_rate_limit", options)
	}
	first, stop := caddy.NewContext(caddy.Context{Context: context.Background()})
	a, b, c := load(first, "", plain), load(first, "", plain), load(first, "", other)
	d, e := load(first, "route /a", plain), load(first, "route /b", plain)
	f, g, s := load(first, "route /a", named), load(first, "route /b", named), load(first, "", scarce)
	for _, test := range []struct {
		name string
		p    *RateLimit
		want int
	}{
		{"the first", a, 1}, {"an equal one", b, 1}, {"another one", c, 1}, {"of a route", d, 1}, {"of another route", e, 1},
		{"with a name", f, 1}, {"with the same name", g, 2}, {"with a table of its own", s, 1}, {"the first again", a, 2},
	} {
		if got := used(test.p); got != test.want {
			t.Errorf("%s: %d are used, want %d", test.name, got, test.want)
		}
	}

	second, stopSecond := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer stopSecond()
	e2, d2 := load(second, "route /b", plain), load(second, "route /a", plain) // in a different order
	a2, b2, c2 := load(second, "", plain), load(second, "", plain), load(second, "", plain)
	f2, s2 := load(second, "route /c", changed), load(second, "", scarce)
	stop() // a reload starts the new configuration before it stops the old one
	for _, test := range []struct {
		name string
		p    *RateLimit
		want int
	}{
		{"the first", a2, 3}, {"an equal one", b2, 2}, {"a new one", c2, 1}, {"of a route", d2, 2}, {"of another route", e2, 2},
		{"with a name, changed", f2, 3}, {"with a table of its own", s2, 2},
	} {
		if got := used(test.p); got != test.want {
			t.Errorf("after a reload, %s: %d are used, want %d", test.name, got, test.want)
		}
	}
}

func TestRateLimitReleasesWhatItHolds(t *testing.T) {
	for _, options := range []string{
		`{"requests": 1, "window": "1s"}`, `{"requests": 1, "window": "1s", "max_keys": 5000, "redis": "redis://127.0.0.1:1"}`,
		`{"requests": 1, "window": "1s", "redis": "redis://{env.RATE_NOT_SET}"}`, `{"disabled": true}`, `{"requests": 1}`,
	} {
		ctx, stop := caddy.NewContext(caddy.Context{Context: context.Background()})
		_, err := ctx.LoadModuleByID("http.handlers.rgate_rate_limit", json.RawMessage(options))
		t.Logf("%s: %v", options, err)
		stop()
		for name, pool := range map[string]*caddy.UsagePool{"tables": tables, "redises": redises, "ordinals": configIDs} {
			pool.Range(func(key, _ any) bool {
				t.Errorf("%s: %s still has %v", options, name, key)
				return true
			})
		}
	}
}

func TestRateLimitOff(t *testing.T) {
	p := rateLoad[*RateLimit](t, rateContext(t), "rgate_rate_limit", `{"disabled": true}`)
	if w := rateServe(t, p, rateRequest("203.0.113.7:1")); len(w.Header()) != 0 {
		t.Errorf("got %v", w.Header())
	}
}

func TestRateLimitGoesOnWithoutRedis(t *testing.T) {
	server := startRedis(t)
	options := `{"requests": 4, "window": "1h", "redis_timeout": "10s", "redis": "redis://` + server.address() + `"}`
	p := rateLoad[*RateLimit](t, rateContext(t), "rgate_rate_limit", options)
	other := rateLoad[*RateLimit](t, rateContext(t), "rgate_rate_limit", options) // as on another gateway
	remaining := func(p *RateLimit, want string) {
		t.Helper()
		if w := rateServe(t, p, rateRequest("203.0.113.7:1")); w.Header().Get("RateLimit-Remaining") != want {
			t.Errorf("got %d, %v, want %s to remain", w.Code, w.Header(), want)
		}
	}
	other.local = newLimiter(minMaxKeys) // as in another process
	remaining(p, "3")
	remaining(other, "2")
	remaining(p, "1")
	server.kill()
	remaining(p, "1") // according to the count in memory
	remaining(p, "0")
	remaining(other, "2")
	if w := rateServe(t, p, rateRequest("203.0.113.7:1")); w.Code != http.StatusTooManyRequests {
		t.Errorf("got %d", w.Code)
	}
}

func TestRateLimitCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		"rgate_rate_limit 1000 60s": `{"requests":1000,"window":60000000000}`,
		"rgate_rate_limit off":      `{"disabled":true}`,
		"rgate_rate_limit 5 1m {\nkey {http.request.header.X-User}\nipv6_prefix 48\nname n\ncost 2\nhide_headers\nmax_keys 5000\n}": `{"requests":5,"window":60000000000,"key":"{http.request.header.X-User}","ipv6_prefix":48,"name":"n","cost":"2","hide_headers":true,"max_keys":5000}`,
		"rgate_rate_limit {\nlimits 10 1s\nlimits 100 1m\nredis redis://127.0.0.1:6379/0\nredis_timeout 20ms\n}":                    `{"limits":[{"requests":10,"window":1000000000},{"requests":100,"window":60000000000}],"redis":"redis://127.0.0.1:6379/0","redis_timeout":20000000}`,
	} {
		p := new(RateLimit)
		d := caddyfile.NewTestDispenser(text)
		d.Next()
		if err := options.Unmarshal(d, p); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, _ := json.Marshal(p)
		var a, b any
		_, _ = json.Unmarshal(got, &a), json.Unmarshal([]byte(want), &b)
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: got %s", text, got)
		}
	}
}

func TestRateLimitCheck(t *testing.T) {
	for text, want := range map[string][2]string{
		`{}`:                                {"requests", "requests and window are required"},
		`{"requests": 5}`:                   {"window", "window is required: set the time in which 5 requests are allowed, such as 60s"},
		`{"window": "5s"}`:                  {"requests", "requests is required: set the number of requests allowed in 5s"},
		`{"requests": -1, "window": "5s"}`:  {"requests", "invalid requests -1"},
		`{"requests": 1, "window": "5us"}`:  {"window", "invalid window 5µs: must be 1ms to 8784h"},
		`{"requests": 1, "window": "367d"}`: {"window", "invalid window 8808h0m0s"},
		`{"requests": 1, "window": "1s", "limits": [{"requests": 1, "window": "1s"}]}`:        {"limits", "limits cannot be combined with requests or window: move requests and window into limits"},
		`{"limits": [{"requests": 1, "window": "1s"}, {"requests": 2}]}`:                      {"limits[1].window", "window is required"},
		`{"limits": [{"requests": 1, "window": "1s"}, {}]}`:                                   {"limits[1].requests", "are required"},
		`{"limits": [{"requests": 1, "window": "60s"}, {"requests": 2, "window": "1m"}]}`:     {"limits[1].window", "duplicate window 1m0s: remove the limit with more requests"},
		`{"limits": [{}, {}, {}, {}, {}, {}, {}, {}, {}]}`:                                    {"limits", "too many limits (9): use at most 8"},
		`{"requests": 1, "window": "1s", "ipv6_prefix": 129}`:                                 {"ipv6_prefix", "invalid ipv6_prefix 129: must be 1 to 128"},
		`{"requests": 1, "window": "1s", "cost": "0"}`:                                        {"cost", `invalid cost "0": must be a whole number`},
		`{"requests": 1, "window": "1s", "cost": 1.5}`:                                        {"cost", `invalid cost "1.5": must be a whole number`},
		`{"requests": 1, "window": "1s", "redis": "127.0.0.1"}`:                               {"redis", "invalid redis: must be a URL such as redis://127.0.0.1:6379/0"},
		`{"requests": 1, "window": "1s", "redis": "redis://h?a=b"}`:                           {"redis", "unexpected option: a"},
		`{"requests": 1, "window": "1s", "redis": "redis://h", "redis_timeout": -1}`:          {"redis_timeout", "invalid redis_timeout -1ns: must be a positive duration"},
		`{"requests": 5, "window": "1s", "cost": 6}`:                                          {"cost", "invalid cost 6: must be at most 5"},
		`{"requests": 5, "window": "1s", "cost": 5000000000}`:                                 {"cost", "invalid cost 5000000000: must be at most 5"},
		`{"requests": 5, "window": "1s", "key": "{http.request.header.X-U"}`:                  {"key", "has an unclosed placeholder: close it with }"},
		`{"requests": 5, "window": "1s", "redis_timeout": "1s"}`:                              {"redis_timeout", "redis_timeout requires redis"},
		`{"requests": 5, "window": "1s", "redis": "redis://h:65536"}`:                         {"redis", "invalid redis port 65536: must be at most 65535"},
		`{"requests": 1, "window": "1s", "max_keys": 10}`:                                     {"max_keys", "invalid max_keys 10: must be 1000 to 100000000"},
		`{"requests": 1, "window": "1s", "cost": "{http.request.header.X-Cost}"}`:             {},
		`{"requests": 1, "window": "1s", "redis": "redis://:{env.PASSWORD}@{env.HOST}:6379"}`: {},
		`{"disabled": true}`: {},
	} {
		p := new(RateLimit)
		if err := json.Unmarshal([]byte(text), p); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		err := p.Check()
		if want[0] == "" {
			if err != nil {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		var about *options.Error
		if !errors.As(err, &about) || about.Field() != want[0] || !strings.Contains(err.Error(), want[1]) {
			t.Errorf("%s: got %v, want %s about %s", text, err, want[1], want[0])
		}
	}
	for _, text := range []string{`{"cost": true}`, `{"cost": []}`} {
		if err := json.Unmarshal([]byte(text), new(RateLimit)); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

// FuzzNetwork checks that no address causes a panic, and that the network of an IPv6
// address has the configured prefix length.
func FuzzNetwork(f *testing.F) {
	for _, seed := range []string{"2001:db8::1", "::ffff:192.0.2.1", "fe80::1%eth0", "192.0.2.1", "[::1]:80", ":", "::"} {
		f.Add(seed, 64)
	}
	f.Fuzz(func(t *testing.T, text string, bits int) {
		bits &= 127
		got := string(appendNetwork(nil, text, bits))
		address, err := netip.ParseAddr(text)
		switch {
		case err != nil || address.Is4():
			if got != "" {
				t.Errorf("%q: got %q", text, got)
			}
		case address.Is4In6():
			if got != address.Unmap().String() {
				t.Errorf("%q: got %q", text, got)
			}
		default:
			if network, err := netip.ParsePrefix(got); err != nil || network.Bits() != bits || !network.Contains(address.WithZone("")) {
				t.Errorf("%q: got %q, %v", text, got, err)
			}
		}
	})
}

func FuzzCost(f *testing.F) {
	for _, seed := range []string{"1", "0", "-1", "1e3", "99999999999999999999", " 1", "+5", "0x10"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if cost, ok := parseCost(text); ok && (cost < 1 || cost > maxRequests+1) || !ok && cost != 0 {
			t.Errorf("%q: got %d, %v", text, cost, ok)
		}
	})
}
