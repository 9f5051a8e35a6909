package balance

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Caddy's reverse proxy starts one goroutine per process.
		goleak.IgnoreAnyFunction("github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy.(*Upstream).fillDynamicHost.func1.1"))
}

// upstreams returns n idle, available upstreams.
func upstreams(n int) reverseproxy.UpstreamPool {
	pool := make(reverseproxy.UpstreamPool, n)
	for i := range pool {
		pool[i] = upstreamAt(fmt.Sprintf("10.0.%d.%d:8080", i/250, i%250))
	}
	return pool
}

func upstreamAt(dial string) *reverseproxy.Upstream {
	return &reverseproxy.Upstream{Dial: dial, Host: new(reverseproxy.Host)}
}

// occupy adds n requests in flight to an upstream, for which it needs a proxy.
func occupy(t testing.TB, u *reverseproxy.Upstream, n int) {
	t.Helper()
	(*atomic.Int64)(unsafe.Pointer(u.Host)).Store(int64(n))
	if got := u.NumRequests(); got != n {
		t.Fatalf("the upstream has %d requests, not %d: Caddy counts them elsewhere now", got, n)
	}
}

// setAvailable makes an upstream available or unavailable.
func setAvailable(t testing.TB, u *reverseproxy.Upstream, available bool) {
	t.Helper()
	u.MaxRequests = 1
	if available {
		occupy(t, u, 0)
	} else {
		occupy(t, u, 1)
	}
	if u.Available() != available {
		t.Fatalf("available is %t", u.Available())
	}
}

// request returns a request as selection policies receive it.
func request(t testing.TB, header ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://example.com/orders/7?page=2", nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), httptest.NewRecorder(), new(caddyhttp.Server))
}

const byUser = "{http.request.header.X-User}"

func user(t testing.TB, i int) *http.Request { return request(t, "X-User", fmt.Sprintf("user-%d", i)) }
