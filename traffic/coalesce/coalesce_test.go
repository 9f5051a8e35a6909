package coalesce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/policy"
)

// coalescePolicy provisions a policy.
func coalescePolicy(t testing.TB, c *Coalesce) *Coalesce {
	t.Helper()
	base, err := caddy.ProvisionContext(new(caddy.Config))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(base)
	t.Cleanup(cancel)
	if err := errors.Join(c.Provision(ctx), c.Validate()); err != nil {
		t.Fatal(err)
	}
	return c
}

// coalesceBackend is a server with the policy and a backend. It holds all requests until
// it is opened.
type coalesceBackend struct {
	*httptest.Server
	policy  *Coalesce
	reached atomic.Int32
	open    chan struct{}
	once    sync.Once
	errs    sync.Map // errors returned by the policy, by X-Request-Id
}

func (b *coalesceBackend) release() { b.once.Do(func() { close(b.open) }) }

// coalesceServer starts a server with the policy and a backend handler.
func coalesceServer(t testing.TB, c *Coalesce, respond func(w http.ResponseWriter, r *http.Request) error) *coalesceBackend {
	t.Helper()
	b := &coalesceBackend{policy: coalescePolicy(t, c), open: make(chan struct{})}
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		b.reached.Add(1)
		select {
		case <-b.open:
		case <-r.Context().Done():
			return caddyhttp.Error(failure.StatusClientClosedRequest, context.Cause(r.Context()))
		}
		return respond(w, r)
	})
	b.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, new(caddyhttp.Server))
		w.Header().Set("X-Own", r.Header.Get("X-Request-Id"))
		if r.Header.Get("X-Hidden") != "" { // like an API key that is removed before the backend
			policy.MarkAuthenticated(r)
			r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).Set("http.auth.user.id", r.Header.Get("X-Hidden"))
			r.Header.Del("X-Hidden")
		}
		err := c.ServeHTTP(w, r, next)
		if err != nil {
			b.errs.Store(r.Header.Get("X-Request-Id"), err)
			status := http.StatusInternalServerError
			var handlerErr caddyhttp.HandlerError
			if errors.As(err, &handlerErr) {
				status = handlerErr.StatusCode
			}
			w.WriteHeader(status)
		}
	}))
	b.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		_ = conn.(*net.TCPConn).SetWriteBuffer(16 << 10) // small, so that slow clients are detected soon
		return ctx
	}
	b.Start()
	t.Cleanup(func() { b.release(); b.Close() })
	return b
}

// coalesceGet sends a GET request. headers alternates names and values.
func coalesceGet(ctx context.Context, url string, headers ...string) (*http.Response, error) {
	return coalesceDo(ctx, http.MethodGet, url, headers...)
}

func coalesceDo(ctx context.Context, method, url string, headers ...string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return coalesceTransport.RoundTrip(r)
}

var coalesceTransport = &http.Transport{DisableKeepAlives: true, DisableCompression: true}

// coalesceText returns the status and body of a response, or the error.
func coalesceText(response *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Sprintf("%d and %d bytes, then %v", response.StatusCode, len(body), err)
	}
	return fmt.Sprintf("%d %s", response.StatusCode, body)
}

// waiting returns the number of followers.
func (c *Coalesce) waiting() (n int) {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	for _, f := range c.calls.byURL {
		for ; f != nil; f = f.next {
			n += f.followers
		}
	}
	return n
}

// together sends a request and, once it is in flight, the others. All wait until the
// backend is opened. Requests that do not follow must reach the backend before that.
func (b *coalesceBackend) together(t testing.TB, first []string, others ...[]string) (responses []string) {
	t.Helper()
	responses = make([]string, 1+len(others))
	var all sync.WaitGroup
	send := func(i int, headers []string) {
		all.Go(func() {
			responses[i] = coalesceText(coalesceGet(t.Context(), b.URL+"/items?page=1", headers...))
		})
	}
	before := b.reached.Load()
	send(0, first)
	testkit.Eventually(t, "the first request is under way", func() bool { return b.reached.Load() == before+1 })
	for i, headers := range others {
		send(1+i, headers)
	}
	testkit.Eventually(t, "all requests wait", func() bool {
		return b.policy.waiting()+int(b.reached.Load()-before) == 1+len(others)
	})
	b.release()
	all.Wait()
	return responses
}

func coalesceHello(w http.ResponseWriter, _ *http.Request) error {
	_, err := io.WriteString(w, "hello")
	return err
}

func TestCoalesceManyClients(t *testing.T) {
	const clients = 500
	b := coalesceServer(t, new(Coalesce), coalesceHello)
	headers := make([][]string, clients-1)
	for i := range headers {
		headers[i] = []string{"X-Request-Id", fmt.Sprint(i), "User-Agent", fmt.Sprint("client/", i)}
	}
	for i, got := range b.together(t, nil, headers...) {
		if got != "200 hello" {
			t.Errorf("client %d got %s", i, got)
		}
	}
	if n := b.reached.Load(); n != 1 {
		t.Errorf("the backend was asked %d times", n)
	}
}

func TestCoalesceWhatIsEqual(t *testing.T) {
	const key = "{http.request.header.Authorization}{http.request.cookie.user}"
	for _, tc := range []struct {
		what, key string
		shared    bool
		a, b      []string
	}{
		{"equal", "", true, []string{"Accept", "text/html"}, []string{"Accept", "text/html"}},
		{"another program", "", true, []string{"User-Agent", "a"}, []string{"User-Agent", "b"}},
		{"another way", "", true, []string{"X-Forwarded-For", "1.1.1.1", "Traceparent", "1"}, []string{"X-Forwarded-For", "2.2.2.2"}},
		{"another Accept", "", false, []string{"Accept", "text/html"}, []string{"Accept", "application/json"}},
		{"another Accept-Language", "", false, []string{"Accept-Language", "de"}, nil},
		{"another Range", "", false, []string{"Range", "bytes=0-1"}, []string{"Range", "bytes=2-3"}},
		{"another validator", "", false, []string{"If-None-Match", `"a"`}, nil},
		{"an unknown field", "", false, []string{"X-Api-Key", "a"}, []string{"X-Api-Key", "b"}},
		{"the gateway's word about the user", "", false, []string{"X-User-Id", "alice"}, []string{"X-User-Id", "bob"}},
		{"the same user by such a field", "", true, []string{"X-Api-Key", "a"}, []string{"X-Api-Key", "a"}},
		{"credentials", "", false, []string{"Authorization", "a"}, []string{"Authorization", "a"}},
		{"credentials on one side", "", false, nil, []string{"Authorization", "a"}},
		{"cookies", "", false, []string{"Cookie", "user=1"}, []string{"Cookie", "user=1"}},
		{"cookies on one side", "", false, nil, []string{"Cookie", "user=1"}},
		{"named credentials", key, true, []string{"Authorization", "a"}, []string{"Authorization", "a"}},
		{"other named credentials", key, false, []string{"Authorization", "a"}, []string{"Authorization", "b"}},
		{"named credentials on one side", key, false, nil, []string{"Authorization", "a"}},
		{"a named cookie", key, true, []string{"Cookie", "user=1; x=1"}, []string{"Cookie", "x=2; user=1"}},
		{"another named cookie", key, false, []string{"Cookie", "user=1"}, []string{"Cookie", "user=2"}},
		{"cookies without the named one", key, false, []string{"Cookie", "x=1"}, []string{"Cookie", "x=1"}},
		{"one credential named, the other not", "{http.request.header.Authorization}", false, []string{"Cookie", "user=1"}, []string{"Cookie", "user=1"}},
		{"all cookies", "{http.request.header.cookie}", true, []string{"Cookie", "a=1; b=2"}, []string{"Cookie", "a=1; b=2"}},
		{"other cookies", "{http.request.header.cookie}", false, []string{"Cookie", "a=1"}, []string{"Cookie", "a=2"}},
		{"hidden credentials", "", false, []string{"X-Hidden", "a"}, []string{"X-Hidden", "a"}},
		{"hidden credentials on one side", "", false, nil, []string{"X-Hidden", "a"}},
		{"a named user with hidden credentials", "{http.auth.user.id}", true, []string{"X-Hidden", "a"}, []string{"X-Hidden", "a"}},
		{"another such user", "{http.auth.user.id}", false, []string{"X-Hidden", "a"}, []string{"X-Hidden", "b"}},
		{"a named user with visible credentials", "{http.auth.user.id}", false, []string{"Authorization", "a"}, []string{"Authorization", "a"}},
		{"another key", "{http.request.header.X-Request-Id}", false, []string{"X-Request-Id", "a"}, []string{"X-Request-Id", "b"}},
		{"events", "", false, []string{"Accept", "text/event-stream"}, []string{"Accept", "text/event-stream"}},
		{"reloads", "", false, []string{"Cache-Control", "no-cache"}, []string{"Cache-Control", "no-cache"}},
		{"upgrades", "", false, []string{"Connection", "Upgrade", "Upgrade", "x"}, []string{"Connection", "Upgrade", "Upgrade", "x"}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			b := coalesceServer(t, &Coalesce{Key: tc.key}, coalesceHello)
			for _, got := range b.together(t, tc.a, tc.b) {
				if got != "200 hello" {
					t.Errorf("got %s", got)
				}
			}
			if shared := b.reached.Load() == 1; shared != tc.shared {
				t.Errorf("the backend was asked %d times", b.reached.Load())
			}
		})
	}
}

func TestCoalesceWhatIsShared(t *testing.T) {
	for _, tc := range []struct {
		what   string
		status int
		header []string // header fields of the response
		shared bool
	}{
		{"plain", 200, nil, true},
		{"public", 200, []string{"Cache-Control", "public, max-age=60"}, true},
		{"not found", 404, nil, true},
		{"not modified", 304, nil, true},
		{"no content", 204, nil, true},
		{"server error", 500, nil, true},
		{"unavailable", 503, []string{"Retry-After", "1"}, true},
		{"redirect with a lifetime", 302, []string{"Cache-Control", "max-age=5"}, true},
		{"redirect", 302, nil, false},
		{"private", 200, []string{"Cache-Control", "max-age=60, Private"}, false},
		{"private fields", 200, []string{"Cache-Control", `private="X-A, X-B", max-age=60`}, false},
		{"no-store", 200, []string{"Cache-Control", "no-store"}, false},
		{"no-cache", 200, []string{"Cache-Control", "no-cache"}, false},
		{"cookie", 200, []string{"Set-Cookie", "a=b"}, false},
		{"vary by all", 200, []string{"Vary", "*"}, false},
		{"vary by an equal field", 200, []string{"Vary", "Accept, Accept-Encoding"}, true},
		{"vary by another field", 200, []string{"Vary", "Accept, user-agent"}, false},
		{"unauthorized", 401, nil, false},
		{"too many", 429, nil, false},
		{"private error", 500, []string{"Cache-Control", "private"}, false},
		{"events", 200, []string{"Content-Type", "text/event-stream; charset=utf-8"}, false},
		{"trailers", 200, []string{"Trailer", "X-A"}, false},
	} {
		t.Run(tc.what, func(t *testing.T) {
			b := coalesceServer(t, new(Coalesce), func(w http.ResponseWriter, _ *http.Request) error {
				for i := 0; i+1 < len(tc.header); i += 2 {
					w.Header().Set(tc.header[i], tc.header[i+1])
				}
				w.WriteHeader(tc.status)
				return nil
			})
			for _, got := range b.together(t, []string{"User-Agent", "a"}, []string{"User-Agent", "b"}) {
				if got != fmt.Sprintf("%d ", tc.status) {
					t.Errorf("got %s", got)
				}
			}
			if shared := b.reached.Load() == 1; shared != tc.shared {
				t.Errorf("the backend was asked %d times", b.reached.Load())
			}
		})
	}
}

// Requests do not wait again for a response that cannot be shared.
func TestCoalesceRemembersWhatIsPrivate(t *testing.T) {
	b := coalesceServer(t, new(Coalesce), func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Cache-Control", "private")
		return nil
	})
	b.together(t, nil, nil)
	b.open, b.once = make(chan struct{}), sync.Once{}
	before := b.reached.Load()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() { coalesceText(coalesceGet(t.Context(), b.URL+"/items?page=1")) })
	}
	testkit.Eventually(t, "all reach the backend", func() bool { return b.reached.Load() == before+3 })
	b.release()
	all.Wait()
}

func TestCoalesceHeadersAreEachOnesOwn(t *testing.T) {
	b := coalesceServer(t, new(Coalesce), func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("X-Backend", "yes")
		w.Header().Set("Content-Type", "text/x")
		return coalesceHello(w, nil)
	})
	var all sync.WaitGroup
	for i := range 5 {
		all.Go(func() {
			response, err := coalesceGet(t.Context(), b.URL, "X-Request-Id", fmt.Sprint("id-", i))
			if err != nil {
				t.Error(err)
				return
			}
			defer response.Body.Close()
			if h := response.Header; h.Get("X-Own") != fmt.Sprint("id-", i) || h.Get("X-Backend") != "yes" || h.Get("Content-Type") != "text/x" {
				t.Errorf("the header is %v", response.Header)
			}
		})
	}
	testkit.Eventually(t, "all wait", func() bool { return b.policy.waiting() == 4 })
	b.release()
	all.Wait()
}

func TestCoalesceLeaderLeaves(t *testing.T) {
	b := coalesceServer(t, new(Coalesce), coalesceHello)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if got := coalesceText(coalesceGet(ctx, b.URL)); !strings.Contains(got, "canceled") {
			t.Errorf("the leader got %s", got)
		}
	}()
	testkit.Eventually(t, "the leader is under way", func() bool { return b.reached.Load() == 1 })
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if got := coalesceText(coalesceGet(t.Context(), b.URL)); got != "200 hello" {
				t.Errorf("a follower got %s", got)
			}
		})
	}
	testkit.Eventually(t, "the others follow", func() bool { return b.policy.waiting() == 3 })
	cancel()
	<-gone
	b.onlyCall(t, func(f *call) bool { return f.alone })
	b.release()
	all.Wait()
	if n := b.reached.Load(); n != 1 {
		t.Errorf("the backend was asked %d times", n)
	}
}

// onlyCall waits until a condition holds for the only call.
func (b *coalesceBackend) onlyCall(t testing.TB, holds func(*call) bool) {
	t.Helper()
	testkit.Eventually(t, "the call is as it should be", func() bool {
		b.policy.calls.mu.Lock()
		defer b.policy.calls.mu.Unlock()
		for _, f := range b.policy.calls.byURL {
			if f != nil {
				return holds(f)
			}
		}
		return false
	})
}
