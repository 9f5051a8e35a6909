package cache

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/policy"
)

// cacheRig is a server with a cache and Caddy's reverse proxy in front of a backend. The
// test sets the backend's responses.
type cacheRig struct {
	t       testing.TB
	cache   *Cache
	gateway *httptest.Server
	backend *httptest.Server
	client  *http.Client
	proxy   caddyhttp.MiddlewareHandler
	around  func(caddyhttp.HandlerFunc) caddyhttp.HandlerFunc // wraps the handler in front of the cache

	mu        sync.Mutex
	responses []http.HandlerFunc // responses of the backend, in order. Guarded by mu.
	asked     []*http.Request    // requests received by the backend. Guarded by mu.
}

// cacheContext returns the context of an empty configuration.
func cacheContext(t testing.TB) caddy.Context {
	t.Helper()
	ctx, err := caddy.ProvisionContext(&caddy.Config{
		Admin:   &caddy.AdminConfig{Disabled: true},
		Logging: &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{Level: "FATAL"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	cancelable, cancel := caddy.NewContext(ctx)
	t.Cleanup(cancel)
	return cancelable
}

// cacheStart provisions a policy and cleans it up when the test ends.
func cacheStart(t testing.TB, p *Cache) *Cache {
	t.Helper()
	ctx := cacheContext(t)
	if err := errors.Join(p.Provision(ctx), p.Validate()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func cacheNewRig(t testing.TB, p *Cache) *cacheRig {
	t.Helper()
	rig := &cacheRig{t: t, cache: cacheStart(t, p)}
	rig.backend = httptest.NewServer(http.HandlerFunc(rig.respond))
	t.Cleanup(rig.backend.Close)
	rig.proxy = cacheProxyTo(t, rig.backend.Listener.Addr().String())
	server := new(caddyhttp.Server)
	rig.gateway = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, server)
		handle := func(w http.ResponseWriter, r *http.Request) error {
			return rig.cache.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				return rig.proxy.ServeHTTP(w, r, nil)
			}))
		}
		if rig.around != nil {
			handle = rig.around(handle)
		}
		w.Header().Set("Server", "Caddy")
		if err := handle(w, r); err != nil {
			status := http.StatusInternalServerError
			var handlerErr caddyhttp.HandlerError
			if errors.As(err, &handlerErr) {
				status = handlerErr.StatusCode
			}
			w.WriteHeader(status)
		}
	}))
	t.Cleanup(rig.gateway.Close)
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	rig.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return rig
}

// cacheProxyTo returns Caddy's reverse proxy for an address.
func cacheProxyTo(t testing.TB, address string) caddyhttp.MiddlewareHandler {
	t.Helper()
	ctx := cacheContext(t)
	module, err := ctx.LoadModuleByID("http.handlers.reverse_proxy", caddyconfig.JSON(map[string]any{
		"upstreams": []any{map[string]string{"dial": address}},
		"transport": map[string]any{"protocol": "http", "compression": false},
	}, nil))
	if err != nil {
		t.Fatal(err)
	}
	return module.(caddyhttp.MiddlewareHandler)
}

// respond is the handler of the backend.
func (rig *cacheRig) respond(w http.ResponseWriter, r *http.Request) {
	rig.mu.Lock()
	rig.asked = append(rig.asked, r)
	var respond http.HandlerFunc
	if len(rig.responses) > 0 {
		respond, rig.responses = rig.responses[0], rig.responses[1:]
	}
	rig.mu.Unlock()
	if respond == nil {
		w.Header().Set("X-Unexpected", "yes")
		w.WriteHeader(http.StatusTeapot)
		return
	}
	respond(w, r)
}

// expect adds a response of the backend for the next request.
func (rig *cacheRig) expect(respond http.HandlerFunc) {
	rig.mu.Lock()
	defer rig.mu.Unlock()
	rig.responses = append(rig.responses, respond)
}

// taken returns the requests that the backend received, and clears them.
func (rig *cacheRig) taken() []*http.Request {
	rig.mu.Lock()
	defer rig.mu.Unlock()
	asked := rig.asked
	rig.asked, rig.responses = nil, nil
	return asked
}

// cacheGot is a complete response.
type cacheGot struct {
	status int
	header http.Header
	body   string
}

// ask sends a request: the line `GET /path` and lines of the header.
func (rig *cacheRig) ask(request string, header ...string) cacheGot {
	rig.t.Helper()
	got, err := rig.try(request, header...)
	if err != nil {
		rig.t.Fatal(err)
	}
	return got
}

func (rig *cacheRig) try(request string, header ...string) (cacheGot, error) {
	method, target, _ := strings.Cut(request, " ")
	r, err := http.NewRequest(method, rig.gateway.URL+target, nil)
	if err != nil {
		return cacheGot{}, err
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Add(name, value)
	}
	response, err := rig.client.Do(r)
	if err != nil {
		return cacheGot{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	header2 := response.Header
	maps.Copy(header2, response.Trailer)
	if response.ContentLength >= 0 && method == http.MethodHead {
		header2.Set("Content-Length", strconv.FormatInt(response.ContentLength, 10))
	}
	return cacheGot{response.StatusCode, header2, string(body)}, err
}

// cacheResponse returns a handler of the backend that sends a response described by
// parts: a status, lines of the header, and `=body`. $NOW, $PAST and $FUTURE are replaced
// by dates.
func cacheResponse(parts []string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		status, body := 200, ""
		w.Header()["Date"] = nil
		for _, part := range parts {
			if name, value, ok := strings.Cut(part, ": "); ok && !strings.HasPrefix(part, "=") {
				if name == "Date" {
					w.Header().Del("Date")
				}
				w.Header().Add(name, cacheDates(value))
			} else if text, ok := strings.CutPrefix(part, "="); ok {
				body = text
			} else if n, err := strconv.Atoi(part); err == nil {
				status = n
			} else {
				panic("unknown part of a response: " + part)
			}
		}
		w.WriteHeader(status)
		if r.Method != http.MethodHead && status != 304 && status != 204 {
			_, _ = io.WriteString(w, body)
		}
	}
}

func cacheDates(text string) string {
	now := time.Now().UTC()
	for name, at := range map[string]time.Time{"$NOW": now, "$PAST": now.Add(-time.Hour), "$FUTURE": now.Add(time.Hour)} {
		text = strings.ReplaceAll(text, name, at.Format(http.TimeFormat))
	}
	return text
}

// run executes a script. The lines of a script are:
//
//	> GET /path | Name: value      the request of the client
//	< 200 | Name: value | =body    before the request: the response of the backend
//	= 200 | hit | Name: value | !Name | =body    the expected response; a word must be in Cache-Status
//	? Name: value | !Name          the expected request at the backend
//
// The backend must receive exactly one request for each of its responses.
func (rig *cacheRig) run(script string) {
	rig.t.Helper()
	var got cacheGot
	var asked []*http.Request
	expected := 0
	for i, line := range strings.Split(strings.TrimSpace(script), "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		parts := strings.Split(line[2:], " | ")
		at := fmt.Sprintf("line %d: %s", i+1, line)
		switch line[0] {
		case '<':
			expected++
			rig.expect(cacheResponse(parts))
		case '>':
			for i, part := range parts {
				parts[i] = cacheDates(part)
			}
			got = rig.ask(parts[0], parts[1:]...)
			asked = rig.taken()
			if len(asked) != expected {
				rig.t.Errorf("%s: the backend was asked %d times, want %d; got %d %q %v", at, len(asked), expected, got.status, got.body, got.header)
			}
			expected = 0
		case '=':
			cacheCheck(rig.t, at, got, parts)
		case '?':
			if len(asked) == 0 {
				rig.t.Errorf("%s: the backend was not asked", at)
				continue
			}
			cacheCheckHeader(rig.t, at, asked[len(asked)-1].Header, parts)
		default:
			rig.t.Fatalf("%s: means nothing", at)
		}
	}
}

func cacheCheck(t testing.TB, at string, got cacheGot, parts []string) {
	t.Helper()
	var fields []string
	for _, part := range parts {
		if n, err := strconv.Atoi(part); err == nil {
			if got.status != n {
				t.Errorf("%s: got status %d %v %q", at, got.status, got.header, got.body)
			}
		} else if body, ok := strings.CutPrefix(part, "="); ok {
			if got.body != body {
				t.Errorf("%s: got body %q", at, got.body)
			}
		} else if strings.Contains(part, ": ") || strings.HasPrefix(part, "!") {
			fields = append(fields, part)
		} else if status := strings.Join(got.header["Cache-Status"], ", "); !strings.Contains(status, part) {
			t.Errorf("%s: got Cache-Status %q", at, status)
		}
	}
	cacheCheckHeader(t, at, got.header, fields)
}

func cacheCheckHeader(t testing.TB, at string, h http.Header, parts []string) {
	t.Helper()
	for _, part := range parts {
		if name, ok := strings.CutPrefix(part, "!"); ok {
			if h[http.CanonicalHeaderKey(name)] != nil {
				t.Errorf("%s: there is %s: %q", at, name, h[http.CanonicalHeaderKey(name)])
			}
			continue
		}
		name, want, _ := strings.Cut(part, ": ")
		if got := strings.Join(h[http.CanonicalHeaderKey(name)], ", "); got != cacheDates(want) && !(want == "*" && got != "") {
			t.Errorf("%s: %s is %q", at, name, got)
		}
	}
}

// cachePlaced is a request state with a fixed route.
type cachePlaced struct{ place policy.RouteInfo }

func (e cachePlaced) RouteInfo() policy.RouteInfo { return e.place }

func (cachePlaced) Forward(string, http.ResponseWriter, *http.Request) (bool, error) {
	return false, nil
}

func (e cachePlaced) Attach(r *http.Request) {
	caddyhttp.SetVar(r.Context(), policy.RequestStateVar, e)
}

// cacheClosedPort returns an address without a listener.
func cacheClosedPort(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
