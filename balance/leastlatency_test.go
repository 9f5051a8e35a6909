package balance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/dialing"
	"github.com/rgate/rgate/internal/monotime"
	"github.com/rgate/rgate/internal/testkit"
)

// handler loads an HTTP handler module from JSON.
func handler(t testing.TB, id, config string) caddyhttp.MiddlewareHandler {
	t.Helper()
	module, err := testkit.Context(t).LoadModuleByID(id, json.RawMessage(config))
	if err != nil {
		t.Fatalf("loading %s: %v", id, err)
	}
	return module.(caddyhttp.MiddlewareHandler)
}

// serve starts a server for a handler, like Caddy's server, and returns its URL.
func serve(t testing.TB, h caddyhttp.MiddlewareHandler) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, new(caddyhttp.Server))
		err := h.ServeHTTP(w, r, nil)
		if handlerErr, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
			w.WriteHeader(handlerErr.StatusCode)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// proxyTo returns a reverse proxy with least_latency, and its policy.
func proxyTo(t testing.TB, options string, dials ...string) (*reverseproxy.Handler, *LeastLatency) {
	t.Helper()
	var to []string
	for _, dial := range dials {
		to = append(to, fmt.Sprintf(`{"dial": %q}`, dial))
	}
	proxy := handler(t, "http.handlers.reverse_proxy", fmt.Sprintf(
		`{"upstreams": [%s], "load_balancing": {"selection_policy": {"policy": "least_latency"}} %s}`,
		strings.Join(to, ","), options)).(*reverseproxy.Handler)
	return proxy, proxy.LoadBalancing.SelectionPolicy.(*LeastLatency)
}

func get(t testing.TB, url string, header ...string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// TestLearnsFromRoundTrips checks that round trips are measured for every kind of
// transport configuration.
func TestLearnsFromRoundTrips(t *testing.T) {
	for name, options := range map[string]string{
		"default transport": "",
		"own transport":     `, "transport": {"protocol": "http"}`,
	} {
		t.Run(name, func(t *testing.T) {
			dial, _ := testkit.Backend(t, nil)
			proxy, policy := proxyTo(t, options, dial)
			if status, _ := get(t, serve(t, proxy)); status != http.StatusOK {
				t.Fatalf("the status is %d", status)
			}
			h := policy.table.find(dial)
			if h == nil || h.estimate.Load() == 0 || h.waiting.Load() != 0 {
				t.Errorf("nothing was learnt: %+v", h)
			}
		})
	}
}

func TestFailuresAreNoticed(t *testing.T) {
	closed := httptest.NewServer(nil)
	refusing := closed.Listener.Addr().String()
	closed.Close()
	failing, _ := testkit.Backend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	breaking, _ := testkit.Backend(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	missing, _ := testkit.Backend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	for name, test := range map[string]struct {
		dial     string
		status   int
		failures int32
	}{
		"no listener":        {refusing, http.StatusBadGateway, 1},
		"status 500":         {failing, http.StatusInternalServerError, 1},
		"cut connection":     {breaking, http.StatusBadGateway, 1},
		"the client's error": {missing, http.StatusNotFound, 0},
	} {
		t.Run(name, func(t *testing.T) {
			proxy, policy := proxyTo(t, "", test.dial)
			if status, _ := get(t, serve(t, proxy)); status != test.status {
				t.Errorf("the status is %d, not %d", status, test.status)
			}
			if got := policy.table.find(test.dial).failures.Load(); got != test.failures {
				t.Errorf("%d failures are known, not %d", got, test.failures)
			}
		})
	}
}

func TestRetriesGoElsewhere(t *testing.T) {
	closed := httptest.NewServer(nil)
	refusing := closed.Listener.Addr().String()
	closed.Close()
	working, requests := testkit.Backend(t, nil)
	proxy, policy := proxyTo(t, "", refusing, working)
	proxy.LoadBalancing.Retries = 2
	url := serve(t, proxy)
	for range 50 {
		if status, _ := get(t, url); status != http.StatusOK {
			t.Fatalf("the status is %d", status)
		}
	}
	if got := requests.Load(); got != 50 {
		t.Errorf("the working upstream had %d of 50 requests", got)
	}
	if h := policy.table.find(refusing); h == nil || h.failures.Load() == 0 {
		t.Error("the other one's failures are not known")
	}
}

func TestLeavingClientsAreNoFailure(t *testing.T) {
	arrived, gone := make(chan struct{}), make(chan struct{})
	dial, _ := testkit.Backend(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(gone)
	})
	proxy, policy := proxyTo(t, "", dial)
	url := serve(t, proxy)
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-arrived
		leave()
	}()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if response, err := client.Do(r); err == nil {
		response.Body.Close()
		t.Fatal("there was a response")
	}
	<-gone
	h := policy.table.find(dial)
	testkit.Eventually(t, "the request ends", func() bool { return h.waiting.Load() == 0 })
	if n := h.failures.Load(); n != 0 {
		t.Errorf("it counts as %d failures", n)
	}
}

func TestASlowUpstreamGetsLittleForReal(t *testing.T) {
	slowBy := func(d time.Duration) http.HandlerFunc {
		return func(http.ResponseWriter, *http.Request) { time.Sleep(d) }
	}
	fast, fastRequests := testkit.Backend(t, slowBy(5*ms))
	fast2, fast2Requests := testkit.Backend(t, slowBy(5*ms))
	slow, slowRequests := testkit.Backend(t, slowBy(300*ms))
	proxy, _ := proxyTo(t, "", fast, fast2, slow)
	url := serve(t, proxy)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 40 {
				get(t, url)
			}
		})
	}
	wg.Wait()
	a, b, c := fastRequests.Load(), fast2Requests.Load(), slowRequests.Load()
	if all := a + b + c; all != 320 || c > 32 {
		t.Errorf("of %d requests, the slow one had %d, and the others %d and %d", all, c, a, b)
	}
}

// TestHistoriesOutliveReloads checks that histories survive a reload, and are removed
// with their last user.
func TestHistoriesOutliveReloads(t *testing.T) {
	load := func() (*LeastLatency, context.CancelFunc) {
		base, err := caddy.ProvisionContext(new(caddy.Config))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := caddy.NewContext(base)
		module, err := ctx.LoadModuleByID("http.reverse_proxy.selection_policies.least_latency", nil)
		if err != nil {
			t.Fatal(err)
		}
		return module.(*LeastLatency), cancel
	}
	before, unload := load()
	h := before.table.of("10.0.0.1:80", monotime.Now())
	after, unloadAfter := load()
	unload()
	if after.table.find("10.0.0.1:80") != h {
		t.Error("a reload forgets")
	}
	if err := before.Cleanup(); err != nil { // a second call
		t.Error(err)
	}
	// A request of the old configuration can still be in flight.
	if before.Select(upstreams(2), nil, nil) == nil {
		t.Error("nothing was selected")
	}
	unloadAfter()
	if n, ok := tables.References(theTable); ok {
		t.Errorf("the table is used %d times", n)
	}
	if err := new(LeastLatency).Cleanup(); err != nil {
		t.Errorf("cleaning up what was never provisioned: %v", err)
	}
}

func TestLeastLatencySelectsWhatIsAvailable(t *testing.T) {
	p := testkit.Provision(t, new(LeastLatency))
	selectsWhatIsAvailable(t, p)
	for _, u := range upstreams(50) { // some upstreams rest
		p.table.of(u.Dial, monotime.Now()).broke(monotime.Now())
	}
	selectsWhatIsAvailable(t, p)
}

// fullTransport implements all optional interfaces of a proxy's transport.
type fullTransport struct{ trips, overrides int }

func (f *fullTransport) RoundTrip(*http.Request) (*http.Response, error) {
	f.trips++
	return &http.Response{StatusCode: http.StatusOK}, nil
}
func (f *fullTransport) RequestHeaderOps() *headers.HeaderOps       { return new(headers.HeaderOps) }
func (f *fullTransport) ProxyProtocolEnabled() bool                 { return true }
func (f *fullTransport) RequiresContentLength() bool                { return true }
func (f *fullTransport) OverrideHealthCheckScheme(*url.URL, string) { f.overrides++ }

// bareTransport implements only http.RoundTripper.
type bareTransport struct{ http.RoundTripper }

func TestTimedTransportIsLikeItsTransport(t *testing.T) {
	full := new(fullTransport)
	c := &timedTransport{dialing.Wrapper{RoundTripper: full}, new(table)}
	c.OverrideHealthCheckScheme(nil, "")
	if c.RequestHeaderOps() == nil || !c.ProxyProtocolEnabled() || !c.RequiresContentLength() || full.overrides != 1 {
		t.Error("it hides what its transport can do")
	}
	bare := c.Around(bareTransport{full}).(*timedTransport)
	bare.OverrideHealthCheckScheme(nil, "")
	if bare.RequestHeaderOps() != nil || bare.ProxyProtocolEnabled() || bare.RequiresContentLength() || full.overrides != 1 {
		t.Error("it can do what its transport cannot")
	}
	if bare.table != c.table || c.Unwrap() != full {
		t.Error("it is not the same timedTransport around another transport")
	}
	// Health checks are not measured.
	if _, err := c.RoundTrip(httptest.NewRequest(http.MethodGet, "/", nil)); err != nil || full.trips != 1 || c.table.size != 0 {
		t.Errorf("after a health check: %d trips, %d histories, error %v", full.trips, c.table.size, err)
	}
}

func TestTransportsAreWrappedOnce(t *testing.T) {
	proxy := handler(t, "http.handlers.reverse_proxy", `{"load_balancing": {"selection_policy": {"policy": "header",
		"field": "X-User", "fallback": {"policy": "least_latency"}}}}`).(*reverseproxy.Handler)
	c, ok := proxy.Transport.(*timedTransport)
	if !ok {
		t.Fatalf("as a fallback it does not time the transport, which is %T", proxy.Transport)
	}
	if err := timeRoundTrips(caddy.Context{}, proxy, new(table)); err != nil || proxy.Transport != http.RoundTripper(c) {
		t.Errorf("it was wrapped twice; error %v", err)
	}
}
