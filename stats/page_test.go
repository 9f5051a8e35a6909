package stats

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func get(t testing.TB, rec *Recorder, method, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	if err := servePage(rec, w, httptest.NewRequest(method, target, nil)); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestPageBeforeTheFirstRequest(t *testing.T) {
	const want = `{"requests_count":{"success":0,"error":0},"latency_ms":{"average":0,"p95":0,"p99":0}}`
	w := get(t, NewRecorder("g"), "GET", "/stats")
	if got := w.Body.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "Content-Length": "85",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if w.Code != 200 {
		t.Errorf("status is %d", w.Code)
	}
}

func TestPageGroupsFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := NewRecorder("g")
		rec.Series("/b", "x").Record(200, 1500*time.Microsecond)
		time.Sleep(2 * time.Minute)
		rec.Series("/a", "x").Record(503, 2*time.Millisecond)
		rec.Series(DefaultRoute, "").Record(404, 0)
		rec.Series("/b", "x").shard(0).flow(Traffic{10, 20, 30, 40})

		const (
			some   = `,"bandwidth_bytes":{"ingress":10,"egress":20,"ingress_headers":30,"egress_headers":40}`
			no     = `,"bandwidth_bytes":{"ingress":0,"egress":0,"ingress_headers":0,"egress_headers":0}`
			b      = `{"requests_count":{"success":1,"error":0},"latency_ms":{"average":1.5,"p95":1.494,"p99":1.494}` + some + `}`
			one    = `{"requests_count":{"success":0,"error":1},"latency_ms":{"average":2,"p95":2.012,"p99":2.012}`
			a      = one + no + `}`
			routed = `"requests_count":{"success":1,"error":1},"latency_ms":{"average":1.75,"p95":2.012,"p99":2.012}` + some
			none   = `{"requests_count":{"success":0,"error":1},"latency_ms":{"average":0,"p95":0.001,"p99":0.001}` + no + `}`
			zero   = `{"requests_count":{"success":0,"error":0},"latency_ms":{"average":0,"p95":0,"p99":0}` + some + `}`
			total  = `"requests_count":{"success":1,"error":2},"latency_ms":{"average":1.167,"p95":2.012,"p99":2.012}`
			lately = `"requests_count":{"success":0,"error":2},"latency_ms":{"average":1,"p95":2.012,"p99":2.012}`
		)
		for target, want := range map[string]string{
			"/stats?x=y":                  `{` + total + `}`,
			"/stats?by=bandwidth":         `{` + total + some + `}`,
			"/stats?by=route":             `{` + total + `,"by_route":{"/a":` + a + `,"/b":` + b + `,"_default":` + none + `}}`,
			"/stats?by=backend&window=5m": `{` + total + `,"by_backend":{"_none":` + none + `,"x":{` + routed + `}}}`,
			"/stats?window=1m&by=route&by=backend": `{` + lately +
				`,"by_route":{"/a":` + a + `,"/b":` + zero + `,"_default":` + none + `},"by_backend":{"_none":` + none + `,"x":` + one + some + `}}}`,
		} {
			if got := get(t, rec, "GET", target).Body.String(); got != want {
				t.Errorf("%s:\ngot  %s\nwant %s", target, got, want)
			}
		}
	})
}

func TestPageOfNothingStillHasTheGroupsAskedFor(t *testing.T) {
	body := get(t, NewRecorder("g"), "GET", "/stats?by=route").Body.String()
	if !strings.HasSuffix(body, `,"by_route":{}}`) {
		t.Errorf("got %s", body)
	}
}

func TestPageServesHeadWithoutABody(t *testing.T) {
	w := get(t, NewRecorder("g"), "HEAD", "/stats")
	if w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("Content-Length") != "85" {
		t.Errorf("got %d, %q, %v", w.Code, w.Body, w.Header())
	}
}

func TestPageRejectsInvalidQueries(t *testing.T) {
	for _, tc := range []struct {
		method, target string
		status         int
		says           string
	}{
		{"POST", "/stats", 405, "use GET or HEAD"},
		{"DELETE", "/stats?window=2m", 405, "use GET or HEAD"},
		{"GET", "/stats?window=2m", 400, `"2m": use 1m, 5m or 1h`},
		{"GET", "/stats?window=", 400, "use 1m, 5m or 1h"},
		{"GET", "/stats?window=1m&window=5m", 400, "set it once"},
		{"GET", "/stats?by=user", 400, `"user": use route, backend or bandwidth`},
		{"GET", "/stats?by", 400, "use route, backend or bandwidth"},
		{"GET", "/stats?by=%zz", 400, "?window=1m, 5m or 1h"},
	} {
		w := get(t, NewRecorder("g"), tc.method, tc.target)
		var body map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Errorf("%s %s: %v in %s", tc.method, tc.target, err, w.Body)
		}
		if w.Code != tc.status || len(body) != 1 || !strings.Contains(body["error"], tc.says) {
			t.Errorf("%s %s: %d %s", tc.method, tc.target, w.Code, w.Body)
		}
		if allow := w.Header().Get("Allow"); (allow == "GET, HEAD") != (tc.status == 405) {
			t.Errorf("%s %s: Allow is %q", tc.method, tc.target, allow)
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	for _, seed := range []string{"", "window=1m", "window=5m&by=route", "by=backend&by=route", "window=%31h", "by=;", "&&=", "by=%zz"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseQuery(raw)
		if err != nil {
			if !strings.Contains(err.Error(), "use ") {
				t.Errorf("%q: %v does not say what is right", raw, err)
			}
			return
		}
		// Formatting the query and parsing it again results in the same query.
		again := ""
		for window, name := range map[Window]string{LastMinute: "1m", LastFiveMinutes: "5m", LastHour: "1h"} {
			if q.Window == window {
				again += "&window=" + name
			}
		}
		if q.ByRoute {
			again += "&by=route"
		}
		if q.ByBackend {
			again += "&by=backend"
		}
		if q.Bandwidth {
			again += "&by=bandwidth"
		}
		if same, err := parseQuery(again); err != nil || same != q {
			t.Errorf("%q means %+v, but %q means %+v, %v", raw, q, again, same, err)
		}
	})
}
