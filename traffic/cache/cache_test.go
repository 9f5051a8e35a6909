package cache

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/policy"
)

// The response is streamed while it is recorded.
func TestCacheStreams(t *testing.T) {
	rig := cacheNewRig(t, new(Cache))
	more := make(chan struct{})
	rig.expect(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, "first\n")
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = io.WriteString(w, "second\n")
	})
	response, err := rig.client.Get(rig.gateway.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body := bufio.NewReader(response.Body)
	if line, err := body.ReadString('\n'); err != nil || line != "first\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	close(more)
	if rest, err := io.ReadAll(body); err != nil || string(rest) != "second\n" {
		t.Fatalf("got %q, %v", rest, err)
	}
	testkit.Eventually(t, "the response is stored", func() bool {
		got := rig.ask("GET /", "Cache-Control: only-if-cached")
		return got.status == 200 && got.body == "first\nsecond\n"
	})
}

// Incomplete responses are not stored.
func TestCacheStoresNothingIncomplete(t *testing.T) {
	for what, respond := range map[string]http.HandlerFunc{
		"less than announced": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "half")
		},
		"aborted chunks": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
		"trailers that were not announced": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
		},
	} {
		rig := cacheNewRig(t, new(Cache))
		rig.backend.Config.ErrorLog = cacheNoLog
		rig.gateway.Config.ErrorLog = cacheNoLog
		rig.expect(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			respond(w, r)
		})
		_, _ = rig.try("GET /")
		testkit.Eventually(t, "the request has ended", func() bool { return cacheReserved() == 0 })
		if got := rig.ask("GET /", "Cache-Control: only-if-cached"); got.status != http.StatusGatewayTimeout {
			t.Errorf("%s: got %d %q", what, got.status, got.body)
		}
	}
}

// cacheReserved returns the bytes in use that belong to no entry.
func cacheReserved() (n int64) {
	for _, store := range allCacheStores() {
		if stats := store.Stats(); stats.Entries == 0 {
			n += stats.Bytes
		}
	}
	return n
}

// A client that closes the connection does not affect stored responses.
func TestCacheClientLeaves(t *testing.T) {
	rig := cacheNewRig(t, new(Cache))
	rig.gateway.Config.ErrorLog = cacheNoLog
	left := make(chan struct{})
	rig.expect(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60, stale-if-error=60")
		_, _ = io.WriteString(w, strings.Repeat("x", 100))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(left)
	})
	response, err := rig.client.Get(rig.gateway.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	<-left
	testkit.Eventually(t, "nothing is being received any more", func() bool { return cacheReserved() == 0 })
	rig.taken()
	rig.run(`
		< 200 | Cache-Control: max-age=60 | =b
		> GET /
		= fwd=uri-miss; stored | =b`)
}

func TestCacheBackendIsGone(t *testing.T) {
	rig := cacheNewRig(t, new(Cache))
	rig.run(`
		< 200 | Cache-Control: max-age=60, stale-if-error=60 | Age: 70 | ETag: "1" | =a
		> GET /`)
	alive := rig.proxy
	rig.proxy = cacheProxyTo(t, cacheClosedPort(t))
	rig.run(`
		> GET /
		= 200 | Cache-Status: rgate; fwd=stale; detail=stale-if-error | =a
		> GET / | If-None-Match: "1"
		= 304
		> HEAD /
		= 200 | =
		> GET / | Range: bytes=0-0
		= 206 | =a
		> GET /other
		= 502 | Cache-Status: rgate; fwd=uri-miss
		> POST /other
		= 502 | Cache-Status: rgate; fwd=method`)
	// A policy's error is handled like a backend's error.
	rig.proxy = cacheFailing{caddyhttp.Error(http.StatusServiceUnavailable, failure.Error{Err: io.EOF})}
	rig.run(`
		> GET /
		= 200 | Cache-Status: rgate; fwd=stale; detail=stale-if-error | =a`)
	rig.proxy = cacheFailing{caddyhttp.Error(http.StatusForbidden, io.EOF)}
	rig.run(`
		> GET /
		= 403 | Cache-Status: rgate; fwd=stale`)
	rig.proxy = alive
	rig.run(`
		< 304 | Cache-Control: max-age=60
		> GET /
		= 200 | fwd-status=304 | =a
		> GET /
		= hit`)
}

type cacheFailing struct{ err error }

func (f cacheFailing) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	w.Header().Set("Retry-After", "1")
	return f.err
}

// A response in flight is not stored after its URL was invalidated.
func TestCacheForgetsWhatIsUnderWay(t *testing.T) {
	rig := cacheNewRig(t, new(Cache))
	begun, proceed := make(chan struct{}), make(chan struct{})
	rig.expect(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-proceed
		cacheResponse([]string{"Cache-Control: max-age=60", "=old"})(w, r)
	})
	done := make(chan cacheGot)
	go func() { got, _ := rig.try("GET /"); done <- got }()
	<-begun
	rig.expect(cacheResponse([]string{"204"}))
	rig.ask("PUT /")
	close(proceed)
	if got := <-done; got.body != "old" {
		t.Fatalf("got %q", got.body)
	}
	rig.taken()
	rig.run(`
		< 200 | Cache-Control: max-age=60 | =new
		> GET /
		= fwd=uri-miss | =new`)
}

// A user never receives a response made for another user, regardless of its
// Cache-Control.
func TestCacheKeepsUsersApart(t *testing.T) {
	for what, key := range map[string]string{
		"no key": "", "one of them": "{http.request.header.Authorization}", "all": "{http.request.header.Authorization}{http.request.cookie.a}{http.request.header.X-User-Id}",
	} {
		rig := cacheNewRig(t, &Cache{TTL: caddy.Duration(time.Minute), StaleWhileRevalidate: caddy.Duration(time.Minute), StaleIfError: caddy.Duration(time.Minute), Key: key})
		var asked atomic.Int64
		rig.backend.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user := r.Header.Get("Authorization") + strings.TrimPrefix(r.Header.Get("Cookie"), "a=") + r.Header.Get("X-User-Id")
			h := w.Header()
			switch n := asked.Add(1); r.URL.Path {
			case "/silent":
			case "/private":
				h.Set("Cache-Control", "private, max-age=60")
			case "/max-age":
				if r.Header.Get("Cookie") == "" {
					h.Set("Cache-Control", "max-age=60")
				}
			case "/stale":
				h.Set("Cache-Control", "private, max-age=60, stale-while-revalidate=60")
				h.Set("Age", "70")
			case "/vary":
				h.Set("Cache-Control", "max-age=60, public")
				h.Set("Vary", "Authorization, Cookie, X-User-Id")
			case "/error":
				if n%3 == 0 {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			}
			h.Set("Etag", `"shared"`)
			_, _ = io.WriteString(w, "for "+user)
		})
		paths := []string{"/silent", "/private", "/max-age", "/stale", "/vary", "/error"}
		var all sync.WaitGroup
		for worker := range 8 {
			all.Go(func() {
				random := rand.New(rand.NewPCG(uint64(worker), 1))
				for i := range 150 {
					user := fmt.Sprintf("u%d", random.IntN(5))
					header := []string{"Authorization: " + user, "Cookie: a=" + user, "X-User-Id: " + user}[random.IntN(3)]
					if user == "u0" {
						header = "X-Unknown: 1"
						user = ""
					}
					got, err := rig.try("GET "+paths[i%len(paths)], header)
					// Explicitly fresh responses may be shared between users (RFC 9111,
					// section 4). The body "for " belongs to no user.
					open := paths[i%len(paths)] == "/max-age" && got.body == "for "
					if err != nil || got.status == 200 && got.body != "for "+user && !open {
						t.Errorf("%s %s: %s got %d %q %v %v", what, paths[i%len(paths)], header, got.status, got.body, got.header, err)
						return
					}
				}
			})
		}
		all.Wait()
	}
}

// A field changed by a later handler does not select a variant.
func TestCacheVaryOnChangedFields(t *testing.T) {
	rig := cacheNewRig(t, new(Cache))
	rig.proxy = cacheLooking{rig.proxy, func(r *http.Request) { r.Header.Set("X-Who", "alice") }}
	rig.run(`
		< 200 | Cache-Control: max-age=60 | Vary: X-Who | =for alice
		> GET /
		= =for alice
		< 200 | =b
		> GET / | X-Who: alice
		= =b
		< 200 | Cache-Control: max-age=60 | Age: 70 | ETag: "1" | =a
		> GET /v
		< 200 | Cache-Control: max-age=60 | Vary: X-Who | =for alice
		> GET /v
		? If-None-Match: "1"
		< 200 | =b
		> GET /v
		= =b`)
}

// Credentials prevent sharing even if a later handler removes them.
func TestCacheHiddenCredentials(t *testing.T) {
	rig := cacheNewRig(t, &Cache{TTL: caddy.Duration(time.Minute)})
	rig.around = func(next caddyhttp.HandlerFunc) caddyhttp.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) error {
			policy.MarkAuthenticated(r)
			return next(w, r)
		}
	}
	rig.run(`
		< 200 | =a
		> GET /silent
		< 200 | =b
		> GET /silent
		= =b
		< 200 | Cache-Control: max-age=60 | =a
		> GET /
		< 200 | =b
		> GET /
		= =b`)
}

// Fields set by earlier handlers belong to one response and are not stored.
func TestCacheStoresNothingOfOthers(t *testing.T) {
	rig := cacheNewRig(t, new(Cache))
	var n atomic.Int64
	rig.around = func(next caddyhttp.HandlerFunc) caddyhttp.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("X-Request-Id", fmt.Sprint(n.Add(1)))
			w.Header().Set("Vary", "Origin")
			return next(w, r)
		}
	}
	rig.run(`
		< 200 | Cache-Control: max-age=60 | Vary: Accept | =a
		> GET /
		= X-Request-Id: 1 | Vary: Origin, Accept
		> GET /
		= hit | X-Request-Id: 2 | Vary: Origin, Accept`)
}

// Ports, routes and backends have separate responses, regardless of Host.
func TestCachePlacesAreApart(t *testing.T) {
	a, b := cacheNewRig(t, new(Cache)), cacheNewRig(t, new(Cache))
	a.run(`
		< 200 | Cache-Control: max-age=60 | =a
		> GET / | Host: victim.example`)
	b.run(`
		< 200 | Cache-Control: max-age=60 | =b
		> GET / | Host: victim.example
		= =b`)
	place := policy.RouteInfo{Gateway: "edge", Route: "/", Backend: "v1"}
	a.around = func(next caddyhttp.HandlerFunc) caddyhttp.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) error {
			caddyhttp.SetVar(r.Context(), policy.RequestStateVar, cachePlaced{place})
			return next(w, r)
		}
	}
	a.run(`
		< 200 | Cache-Control: max-age=60 | =v1
		> GET /`)
	place.Backend = "v2"
	a.run(`
		< 200 | Cache-Control: max-age=60 | =v2
		> GET /
		= =v2
		> GET /
		= hit | =v2
		< 200
		> POST /`)
	place.Backend = "v1" // the POST also invalidated the responses of other backends
	a.run(`
		< 200 | =new
		> GET /
		= =new`)
}

func TestCacheProtocolSwitch(t *testing.T) {
	rig := cacheNewRig(t, &Cache{TTL: caddy.Duration(time.Minute)})
	rig.expect(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "echo")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		line, _ := buffered.ReadString('\n')
		_, _ = io.WriteString(conn, "echo "+line)
	})
	r, _ := http.NewRequest(http.MethodGet, rig.gateway.URL, nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "echo")
	response, err := rig.client.Do(r)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v", response, err)
	}
	conn := response.Body.(io.ReadWriteCloser)
	defer conn.Close()
	_, _ = io.WriteString(conn, "hello\n")
	if line, _ := bufio.NewReader(conn).ReadString('\n'); line != "echo hello\n" {
		t.Errorf("got %q", line)
	}
}

// A value in one part of the key cannot collide with another part.
func TestCacheKeysAreUnambiguous(t *testing.T) {
	cacheNewRig(t, &Cache{Key: "{http.request.header.A}{http.request.header.B}"}).run(`
		< 200 | Cache-Control: max-age=60 | =1
		> GET / | A: x | B: y
		< 200 | Cache-Control: max-age=60 | =2
		> GET / | A: xy
		= =2
		> GET / | A: x | B: y
		= hit | =1`)
}

// The response to a GET request with a body is not stored.
func TestCacheBodies(t *testing.T) {
	rig := cacheNewRig(t, &Cache{TTL: caddy.Duration(time.Minute)})
	for _, body := range []string{"a", "b"} {
		rig.expect(cacheResponse([]string{"=" + body}))
		r, _ := http.NewRequest(http.MethodGet, rig.gateway.URL, strings.NewReader(body))
		response, err := rig.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if string(got) != body {
			t.Errorf("got %q, want %q", got, body)
		}
	}
}
