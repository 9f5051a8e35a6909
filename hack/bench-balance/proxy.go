package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// upstream is a server with a fixed latency.
type upstream struct {
	*httptest.Server
	requests, inFlight, most atomic.Int64
}

func newUpstream(latency time.Duration) *upstream {
	u := new(upstream)
	u.Server = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		u.requests.Add(1)
		now := u.inFlight.Add(1)
		defer u.inFlight.Add(-1)
		for most := u.most.Load(); now > most && !u.most.CompareAndSwap(most, now); most = u.most.Load() {
		}
		time.Sleep(latency)
	}))
	return u
}

// trial is a load test of a proxy.
type trial struct {
	policy    string // as JSON
	upstreams []*upstream
	clients   int
	key       func(*rand.Rand) string // returns the key of a request; nil: no key
}

// run runs the load test and returns the sorted durations of the requests.
func (t *trial) run(ctx context.Context, duration time.Duration) ([]time.Duration, error) {
	proxy, stop, err := t.start()
	if err != nil {
		return nil, err
	}
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	transport := &http.Transport{MaxIdleConnsPerHost: t.clients}
	defer transport.CloseIdleConnections()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards all below
		all   []time.Duration
		first error
	)
	for range t.clients {
		wg.Go(func() {
			took, err := t.client(ctx, transport, proxy.URL)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			if first == nil {
				first = err
			}
		})
	}
	wg.Wait()
	slices.Sort(all)
	if first == nil && len(all) == 0 {
		first = errors.New("no request was sent in time")
	}
	return all, first
}

// client sends requests sequentially until the end of the measurement.
func (t *trial) client(ctx context.Context, transport http.RoundTripper, url string) (took []time.Duration, err error) {
	random := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for ctx.Err() == nil {
		r, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			return took, err
		}
		if t.key != nil {
			r.Header.Set("X-User", t.key(random))
		}
		begun := time.Now()
		response, err := transport.RoundTrip(r)
		if err != nil {
			return took, err
		}
		_, err = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("unexpected status %s", response.Status)
		}
		if err != nil {
			return took, err
		}
		took = append(took, time.Since(begun))
	}
	return took, nil
}

// start starts a server with Caddy's reverse proxy and the trial's policy.
func (t *trial) start() (*httptest.Server, func(), error) {
	var to []map[string]string
	for _, u := range t.upstreams {
		to = append(to, map[string]string{"dial": u.Listener.Addr().String()})
	}
	config, err := json.Marshal(map[string]any{
		"upstreams":      to,
		"load_balancing": map[string]any{"selection_policy": json.RawMessage(t.policy)},
		"transport":      map[string]any{"protocol": "http", "keep_alive": map[string]int{"max_idle_conns_per_host": t.clients}},
	})
	if err != nil {
		return nil, nil, err
	}
	base, err := caddy.ProvisionContext(new(caddy.Config))
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := caddy.NewContext(base)
	module, err := ctx.LoadModuleByID("http.handlers.reverse_proxy", config)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	proxy := module.(caddyhttp.MiddlewareHandler)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, new(caddyhttp.Server))
		if err := proxy.ServeHTTP(w, r, nil); err != nil {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	return server, func() { server.Close(); cancel() }, nil
}
