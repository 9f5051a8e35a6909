package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/policy"
)

var cacheNoLog = log.New(io.Discard, "", 0)

// Stored responses survive a reload, even if no request follows for some time.
func TestCacheOutlivesReloads(t *testing.T) {
	rig := cacheNewRig(t, new(Cache))
	rig.run(`
		< 200 | Cache-Control: max-age=60 | =a
		> GET /`)
	for range 3 {
		next := cacheStart(t, &Cache{MaxBytes: 1 << 20})
		if err := rig.cache.Cleanup(); err != nil {
			t.Fatal(err)
		}
		rig.cache = next
	}
	rig.run(`
		> GET /
		= hit | =a`)
	if stats := allCacheStores()[0].Stats(); stats.MaxBytes != 1<<20 {
		t.Errorf("the bound is %d", stats.MaxBytes)
	}
}

func TestCacheStoresGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stay := &Cache{MaxBytes: 1 << 20}
		if err := stay.Provision(cacheContext(t)); err != nil {
			t.Fatal(err)
		}
		leave := &Cache{MaxBytes: 2 << 20}
		if err := leave.Provision(cacheContext(t)); err != nil {
			t.Fatal(err)
		}
		leave.stores.join("edge", leave)
		store := stay.stores.join("other", stay)
		leave.stores.join("other", leave)
		if got := store.Stats().MaxBytes; got != 2<<20 {
			t.Errorf("the larger bound does not count: %d", got)
		}
		_ = leave.Cleanup()
		_ = leave.Cleanup()
		if got := store.Stats().MaxBytes; got != 1<<20 {
			t.Errorf("the bound is still %d", got)
		}
		time.Sleep(unusedFor - time.Second)
		if len(allCacheStores()) != 2 {
			t.Error("a store that was used lately is gone")
		}
		time.Sleep(2 * time.Second)
		if all := allCacheStores(); len(all) != 1 || all[0].gateway != "other" {
			t.Errorf("there are %d stores", len(all))
		}
		_ = stay.Cleanup()
		if allCacheStores() != nil {
			t.Error("there are stores without caches")
		}
	})
}

func TestCacheAdmin(t *testing.T) {
	defer status.Services.Publish("idle", func() any { return nil })() // a gateway without a store
	rig := cacheNewRig(t, new(Cache))
	purge := func(body string) (int, string) {
		w := httptest.NewRecorder()
		err := adminCache{}.purge(w, httptest.NewRequest(http.MethodPost, "/rgate/cache/purge", strings.NewReader(body)))
		var refused caddy.APIError
		if errors.As(err, &refused) {
			return refused.HTTPStatus, fmt.Sprint(refused.HTTPStatus, " ", refused.Err)
		}
		return w.Code, strings.TrimSpace(w.Body.String())
	}
	fill := func() {
		purge(`{"all": true}`)
		rig.run(`
			< 200 | Cache-Control: max-age=60 | Cache-Tag: a, b | =a
			> GET /a?b | Host: a.example
			< 200 | Cache-Control: max-age=60 | Surrogate-Key: b c | Vary: X-A | =a
			> GET /a/b | Host: a.example
			< 200 | Cache-Control: max-age=60 | =a
			> GET /a/b | Host: b.example`)
	}
	for body, want := range map[string]string{
		`{"all": true}`:                      `{"purged":3}`,
		`{"url": "http://A.example:80/a?b"}`: `{"purged":1}`,
		`{"url": "/a/b"}`:                    `{"purged":2}`,
		`{"url": "/a"}`:                      `{"purged":0}`,
		`{"prefix": "/a/"}`:                  `{"purged":2}`,
		`{"prefix": "http://a.example/"}`:    `{"purged":2}`,
		`{"prefix": "http://a.exam"}`:        `{"purged":0}`,
		`{"tag": "b"}`:                       `{"purged":2}`,
		`{"tag": "c", "gateway": ""}`:        `{"purged":1}`,
		`{"tag": "b", "gateway": "idle"}`:    `{"purged":0}`,
		`{"tag": "b", "gateway": "idel"}`:    `404 unknown gateway "idel" (did you mean "idle"?): use one of idle`,
		`{}`:                                 `exactly one of`,
		`{"tag": "b", "url": "/a"}`:          `exactly one of`,
		`{"url": "a.example/b"}`:             `invalid url "a.example/b": must be a URL such as https://example.com/a or a path such as /a`,
		`{"prefix": "a.example/b"}`:          `invalid prefix "a.example/b": must be a URL such as https://example.com/a or a path such as /a`,
		`{"urls": ["/a"]}`:                   `unknown field`,
		`tag=b`:                              `use JSON such as`,
	} {
		fill()
		if _, got := purge(body); !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %s", body, got, want)
		}
	}
	fill()
	w := httptest.NewRecorder()
	if err := (adminCache{}).stats(w, httptest.NewRequest(http.MethodGet, "/rgate/cache", nil)); err != nil {
		t.Fatal(err)
	}
	var stats struct {
		Stores []struct {
			Gateway  string
			Entries  int
			Bytes    int
			MaxBytes int `json:"max_bytes"`
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &stats); err != nil || len(stats.Stores) != 1 || stats.Stores[0].Entries != 3 ||
		stats.Stores[0].Bytes == 0 || stats.Stores[0].MaxBytes != defaultCacheBytes {
		t.Errorf("got %s", w.Body)
	}
	for method, handler := range map[string]func(http.ResponseWriter, *http.Request) error{
		http.MethodPost: adminCache{}.stats, http.MethodGet: adminCache{}.purge,
	} {
		if err := handler(w, httptest.NewRequest(method, "/", nil)); err == nil {
			t.Errorf("%s gets a response", method)
		}
	}
}

func TestCacheMetrics(t *testing.T) {
	rig := cacheNewRig(t, new(Cache))
	rig.around = func(next caddyhttp.HandlerFunc) caddyhttp.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) error {
			caddyhttp.SetVar(r.Context(), policy.RequestStateVar, cachePlaced{policy.RouteInfo{Gateway: "edge", Route: "/api", Backend: "web"}})
			return next(w, r)
		}
	}
	rig.run(`
		< 200 | Cache-Control: max-age=60, stale-if-error=60 | Age: 70 | ETag: "1" | =a
		> GET /
		< 503
		> GET /
		< 304 | Cache-Control: max-age=60
		> GET /
		> GET /
		> GET /
		< 200
		> POST /other
		> GET /none | Cache-Control: only-if-cached`)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newCacheCollector())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, family := range families {
		for _, series := range family.GetMetric() {
			name := family.GetName()
			for _, label := range series.GetLabel() {
				name += " " + label.GetValue()
			}
			got[name] = series.GetCounter().GetValue() + series.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"rgate_cache_requests_total edge hit /api": 2, "rgate_cache_requests_total edge stale /api": 1,
		"rgate_cache_requests_total edge revalidated /api": 1, "rgate_cache_requests_total edge miss /api": 2,
		"rgate_cache_requests_total edge bypass /api": 1, "rgate_cache_entries edge": 1, "rgate_cache_evictions_total edge": 0,
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s is %v, want %v; there are %v", name, value, want, got)
		}
	}
	if hits := status.CacheHits.All("edge"); len(hits) != 1 || hits[0] != 4 {
		t.Errorf("published hits are %v", hits)
	}
}

func TestCacheOptions(t *testing.T) {
	for text, want := range map[string]string{
		"rgate_cache":     `{}`,
		"rgate_cache 30s": `{"ttl":30000000000}`,
		"rgate_cache off": `{"disabled":true}`,
		"rgate_cache 30s {\nmax_bytes 1GiB\nmax_body 10MB\nkey {http.request.header.X-Tenant}\nstale_while_revalidate 1m\nstale_if_error 1h\nstatus_header false\nignore_request_directives\n}": `{"ttl":30000000000,"max_bytes":1073741824,"max_body":10000000,"key":"{http.request.header.X-Tenant}","stale_while_revalidate":60000000000,"stale_if_error":3600000000000,"status_header":false,"ignore_request_directives":true}`,
		"rgate_cache -30s":                      "invalid ttl -30s: must not be negative",
		"rgate_cache {\nstale_if_error -1s\n}":  "invalid stale_if_error -1s: must not be negative",
		"rgate_cache {\nmax_bytes 1KB\n}":       "invalid max_bytes 1000: must be at least 64KiB, at Testfile:2",
		"rgate_cache {\nmax_body 20MiB\n}":      "invalid max_body 20971520: must be at most 16777216, a quarter of max_bytes, at Testfile:2",
		"rgate_cache {\nkey X-Tenant\n}":        "invalid key \"X-Tenant\": must have a placeholder, such as {http.request.header.X-Tenant}, at Testfile:2",
		"rgate_cache {\nstatus_header maybe\n}": "status_header must be true or false",
		"rgate_cache 30s 40s":                   "unexpected argument",
		"rgate_cache {\nmethods GET\n}":         "unrecognized subdirective",
	} {
		d := caddyfile.NewTestDispenser(text)
		d.Next()
		p := new(Cache)
		if err := options.Unmarshal(d, p); err != nil {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		got, err := json.Marshal(p)
		if err != nil || string(got) != want {
			t.Errorf("%s: got %s %v", text, got, err)
		}
	}
	if err := (&Cache{Base: policy.Base{Disabled: true}, TTL: -1}).Check(); err != nil {
		t.Errorf("a policy that is off is judged: %v", err)
	}
	small := cacheStart(t, &Cache{MaxBytes: 1 << 20})
	if small.MaxBody != 256<<10 {
		t.Errorf("max_body is %d by default", small.MaxBody)
	}
}

func TestCacheOff(t *testing.T) {
	p := cacheStart(t, &Cache{Base: policy.Base{Disabled: true}})
	w := httptest.NewRecorder()
	err := p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil), caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		w.WriteHeader(http.StatusTeapot)
		return nil
	}))
	if err != nil || w.Code != http.StatusTeapot || len(w.Header()) != 0 {
		t.Errorf("got %d %v %v", w.Code, w.Header(), err)
	}
}
