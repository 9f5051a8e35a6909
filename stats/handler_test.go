package stats

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// load provisions a handler like a configuration. unload cleans it up.
func load(t *testing.T, config string) (h *Handler, ctx caddy.Context, unload func()) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	mod, err := ctx.LoadModuleByID("http.handlers.rgate_stats", json.RawMessage(config))
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	return mod.(*Handler), ctx, cancel
}

func request(t *testing.T, h *Handler, path string, status int) string {
	t.Helper()
	w := httptest.NewRecorder()
	err := h.ServeHTTP(w, httptest.NewRequest("GET", path, nil),
		caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(status)
			return nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	return w.Body.String()
}

func TestHandlerRecordsEverythingButItsPage(t *testing.T) {
	h, _, unload := load(t, `{}`)
	defer unload()
	request(t, h, "/", 200)
	request(t, h, "/stats/", 404)
	request(t, h, "/stats", 500)
	if got := request(t, h, "/stats?by=route", 500); !strings.HasPrefix(got, `{"requests_count":{"success":1,"error":1},`) ||
		!strings.Contains(got, `"by_route":{"_default":{"requests_count":{"success":1,"error":1},`) {
		t.Errorf("the page says %s", got)
	}
}

func TestHandlerServesItsPageAtTheConfiguredPath(t *testing.T) {
	h, _, unload := load(t, `{"path": "/figures", "name": "elsewhere"}`)
	defer unload()
	request(t, h, "/stats", 200)
	if got := request(t, h, "/figures", 500); !strings.Contains(got, `"success":1`) {
		t.Errorf("the page says %s", got)
	}

	off, _, unload := load(t, `{"disabled": true, "name": "off"}`)
	defer unload()
	if got := request(t, off, "/stats", 200); got != "" {
		t.Errorf("there is a page although it is off: %s", got)
	}
	if got := off.handle.Report(Query{}).Requests.Success; got != 1 {
		t.Errorf("%d requests recorded while the page is off, want 1", got)
	}
}

func TestFiguresSurviveAReloadAndNoMore(t *testing.T) {
	const config = `{"name": "reloaded"}`
	old, _, unloadOld := load(t, config)
	request(t, old, "/", 200)

	fresh, ctx, unloadFresh := load(t, config)
	request(t, fresh, "/", 503)
	request(t, old, "/", 200) // still in flight during the reload
	unloadOld()

	if got, want := fresh.handle.Report(Query{}).Requests, (Requests{2, 1}); got != want {
		t.Errorf("after the reload: %+v, want %+v", got, want)
	}
	metrics := scrape(t, ctx.GetMetricsRegistry())
	for _, want := range []string{
		`rgate_requests_total{backend="",code="200",gateway="reloaded",route="_default"} 2`,
		`rgate_requests_total{backend="",code="503",gateway="reloaded",route="_default"} 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics are\n%s\nwithout\n%s", metrics, want)
		}
	}
	unloadFresh()

	empty, _, unloadEmpty := load(t, config)
	defer unloadEmpty()
	if got := empty.handle.Report(Query{}).Requests; got != (Requests{}) {
		t.Errorf("after everything was unloaded: %+v, want nothing", got)
	}
}

func TestHandlersOfOneNameShareTheirFigures(t *testing.T) {
	ctx, unload := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer unload()
	for _, route := range []string{"/a", "/b"} {
		mod, err := ctx.LoadModuleByID("http.handlers.rgate_stats",
			json.RawMessage(`{"name": "shared", "route": "`+route+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		request(t, mod.(*Handler), "/", 200)
	}
	metrics := scrape(t, ctx.GetMetricsRegistry())
	if n := strings.Count(metrics, "rgate_requests_total{"); n != 2 {
		t.Errorf("%d counters, want 2:\n%s", n, metrics)
	}
}

func TestAHandleThatIsClosedTwiceReleasesOnce(t *testing.T) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	start := func() *Handle {
		h, err := new(Config).Start(ctx, "twice")
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	first, second := start(), start()
	for range 2 {
		if err := first.Close(); err != nil {
			t.Error(err)
		}
	}
	if refs, ok := recorders.References("twice"); refs != 1 || !ok {
		t.Errorf("%d references, want 1", refs)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if _, ok := recorders.References("twice"); ok {
		t.Error("the recorder is still in the pool")
	}
	if err := (*Handle)(nil).Close(); err != nil {
		t.Error(err)
	}
}

func TestSinksGetTheLastSnapshotWhenTheConfigurationIsUnloaded(t *testing.T) {
	name := filepath.Join(t.TempDir(), "stats.jsonl")
	config, err := json.Marshal(map[string]any{
		"name": "sinking", "sinks": []any{map[string]any{"sink": "json_lines", "filename": name}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, _, unload := load(t, string(config))
	unload()
	if _, err := os.Stat(name); !os.IsNotExist(err) {
		t.Errorf("there is a file although nothing was recorded: %v", err)
	}

	h, _, unload := load(t, string(config))
	request(t, h, "/", 200)
	unload()
	if lines := readLines(t, name); len(lines) != 1 || lines[0]["gateway"] != "sinking" {
		t.Errorf("the file says %v", lines)
	}
}

func TestWrongConfigurationsSayWhatIsRight(t *testing.T) {
	for config, says := range map[string]string{
		`{"path": "stats"}`:                          "must begin with a slash",
		`{"path": "/stats?x"}`:                       "must not contain",
		`{"path": "/stats/*"}`:                       "must not contain",
		`{"interval": "999ms"}`:                      "must be at least 1s",
		`{"interval": -1}`:                           "must be at least 1s",
		`{"sinks": [{"sink": "nowhere"}]}`:           "rgate.stats.sinks.nowhere",
		`{"sinks": [{"sink": "json_lines"}]}`:        "filename is required",
		`{"sinks": [{"filename": "x"}]}`:             "sink",
		`{"unknown": 1}`:                             "unknown",
		`{"sinks": [{"sink": "not_a_sink_at_all"}]}`: "stats.Sink",
	} {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		_, err := ctx.LoadModuleByID("http.handlers.rgate_stats", json.RawMessage(config))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", config, err, says)
		}
		cancel()
		if _, ok := recorders.References("rgate_stats"); ok {
			t.Errorf("%s: the recorder was left behind", config)
		}
	}
}

// notASink is a module in the namespace of sinks that does not implement Sink.
type notASink struct{}

func (notASink) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "rgate.stats.sinks.not_a_sink_at_all", New: func() caddy.Module { return new(notASink) }}
}

func init() { caddy.RegisterModule(notASink{}) }
