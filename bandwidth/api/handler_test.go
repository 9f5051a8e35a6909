package api

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/rgate/rgate/bandwidth/scrape"
	"github.com/rgate/rgate/bandwidth/store"
)

// restLedger is a usage store with a few rows.
type restLedger struct {
	rows  []store.Row
	err   error
	asked []store.Query
}

func (l *restLedger) Usage(_ context.Context, q store.Query) (points []store.Point, _ error) {
	l.asked = append(l.asked, q)
	for _, r := range l.rows {
		in := func(list []string, name string) bool { return len(list) == 0 || slices.Contains(list, name) }
		byConsumer := slices.Contains(q.GroupBy, store.ByConsumer) || len(q.Consumers) > 0
		if r.Minute.Before(q.From) || !r.Minute.Before(q.To) || !in(q.Services, r.Service) || !in(q.Routes, r.Route) ||
			!in(q.Gateways, r.Gateway) || byConsumer != (r.Consumer != "") || !in(q.Consumers, r.Consumer) {
			continue
		}
		p := store.Point{Start: windowOf(r.Minute, q.Step), Bytes: r.Bytes}
		for _, by := range q.GroupBy {
			switch by {
			case store.ByService:
				p.Service = r.Service
			case store.ByRoute:
				p.Route = r.Route
			case store.ByConsumer:
				p.Consumer = r.Consumer
			case store.ByGateway:
				p.Gateway = r.Gateway
			}
		}
		points = append(points, p)
	}
	return points, l.err
}

func (l *restLedger) Names(context.Context, time.Time) (services, routes, consumers, gateways []string, err error) {
	return []string{"payment"}, []string{"/pay"}, nil, []string{"gw-1"}, l.err
}

// restServer returns a handler for a store with two services, a consumer and a source.
func restServer() (*Handler, *restLedger) {
	at := usageNow.Truncate(time.Minute)
	l := &restLedger{rows: []store.Row{
		{Minute: at.Add(-2 * oneMinute), Gateway: "gw-1", Key: store.Key{Service: "payment", Route: "/pay"}, Bytes: store.Bytes{Ingress: 10, Egress: 20, IngressHeaders: 30, EgressHeaders: 40}},
		{Minute: at.Add(-2 * oneMinute), Gateway: "gw-1", Key: store.Key{Service: "orders", Route: "/orders"}, Bytes: store.Bytes{Ingress: 1, Egress: 2, IngressHeaders: 3, EgressHeaders: 4}},
		{Minute: at.Add(-2 * oneMinute), Gateway: "gw-1", Key: store.Key{Service: "payment", Route: "/pay", Consumer: "alice"}, Bytes: store.Bytes{Ingress: 5, Egress: 6}},
		{Minute: at, Gateway: "kong-eu", Key: store.Key{Service: "payment", Route: "/pay"}, Bytes: store.Bytes{Ingress: 100, Egress: 200}},
		{Minute: at.Add(-50 * time.Hour), Gateway: "gw-1", Key: store.Key{Service: "payment", Route: "/pay"}, Bytes: store.Bytes{Ingress: 1000, Egress: 2000}},
	}}
	scraped := usageNow
	return &Handler{
		Base: "/metrics/bandwidth_used", Store: l, Logger: zap.NewNop(), Now: func() time.Time { return usageNow },
		Quotas: func() []any { return restQuotas },
		Sources: func() any {
			return []scrape.Status{{Name: "kong-eu", URL: "http://kong/metrics", Status: scrape.StatusUp, LastScrape: &scraped, Series: 4}, {Name: "b", URL: "http://b/", Status: scrape.StatusDown, Error: "refused"}}
		},
	}, l
}

// restQuotas are two published quotas. A test in package bandwidth compares them with the
// file.
var restQuotas = func() (list []any) {
	text, err := os.ReadFile("testdata/quotas.json")
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	if err != nil {
		panic(err)
	}
	return list
}()

func restAsk(t *testing.T, api *Handler, method, target string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	if err := api.Serve(w, r); err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return w
}

const restBase = "/metrics/bandwidth_used"

func TestRESTResponses(t *testing.T) {
	api, _ := restServer()
	for _, test := range []struct{ target, want string }{
		{"?lookback_duration=1m&type=egress&service=payment&route=/pay", `[{"time":"2026-03-01T12:34:00+00:00","type":"egress","service":"payment","route":"/pay","bandwidth_used":null},{"time":"2026-03-01T12:34:20.500000+00:00","type":"egress","service":"payment","route":"/pay","bandwidth_used":200}]`},
		{"?from=2026-03-01T12:30:00Z&to=2026-03-01T12:35:00Z&step=5m&type=ingress&group_by=service&headers=true", `[{"time":"2026-03-01T12:34:20.500000+00:00","type":"ingress","service":"orders","route":null,"bandwidth_used":1,"header_bytes":3},{"time":"2026-03-01T12:34:20.500000+00:00","type":"ingress","service":"payment","route":null,"bandwidth_used":110,"header_bytes":30}]`},
		{"/total?from=2026-02-01T00:00:00Z&type=egress&service=payment", `{"from":"2026-02-01T00:00:00+00:00","to":"2026-03-01T12:34:20.500000+00:00","totals":[{"type":"egress","service":"payment","route":null,"bandwidth_used":2220}]}`},
		{"/total?lookback_duration=5m&group_by=gateway&type=egress", `{"from":"2026-03-01T12:29:00+00:00","to":"2026-03-01T12:34:20.500000+00:00","totals":[{"type":"egress","service":null,"route":null,"gateway":"gw-1","bandwidth_used":22},{"type":"egress","service":null,"route":null,"gateway":"kong-eu","bandwidth_used":200}]}`},
		{"/total?lookback_duration=5m&consumer=alice&type=egress", `{"from":"2026-03-01T12:29:00+00:00","to":"2026-03-01T12:34:20.500000+00:00","totals":[{"type":"egress","service":null,"route":null,"consumer":"alice","bandwidth_used":6}]}`},
		{"/total?lookback_duration=0m&consumer=bob&type=egress", `{"from":"2026-03-01T12:34:00+00:00","to":"2026-03-01T12:34:20.500000+00:00","totals":[{"type":"egress","service":null,"route":null,"consumer":"bob","bandwidth_used":null}]}`},
		{"/names", `{"consumers":[],"gateways":["gw-1"],"routes":["/pay"],"services":["payment"]}`},
	} {
		w := restAsk(t, api, "GET", restBase+test.target)
		if got := strings.TrimSpace(w.Body.String()); w.Code != 200 || got != test.want || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s\ngot  %s\nwant %s", test.target, w.Code, w.Header(), got, test.want)
		}
	}
}

func TestRESTRefusesInJSON(t *testing.T) {
	api, ledger := restServer()
	check := func(w *httptest.ResponseRecorder, status int, parameter, says string) {
		t.Helper()
		var said errorBody
		err := json.Unmarshal(w.Body.Bytes(), &said)
		if err != nil || w.Code != status || said.Status != status || said.Parameter != parameter || !strings.Contains(said.Error, says) ||
			w.Header().Get("Content-Type") != "application/json" || w.Header().Get("ETag") != "" {
			t.Errorf("got %d %s %v, want %d about %q that says %q", w.Code, w.Body, err, status, parameter, says)
		}
	}
	check(restAsk(t, api, "GET", restBase+"?type=up"), 400, "type", "egress")
	check(restAsk(t, api, "GET", restBase+"/total?step=1h"), 400, "step", "unknown parameter")
	check(restAsk(t, api, "GET", restBase+"/quotas?step=1h"), 400, "step", `unknown parameter "step": remove it, because this endpoint has no parameters`)
	check(restAsk(t, api, "GET", restBase+"/names?from=x"), 400, "from", "RFC 3339")
	check(restAsk(t, api, "GET", restBase+"?type=%zz"), 400, "", `invalid URL escape "%zz"`)
	check(restAsk(t, api, "GET", restBase+"/quotas?a;b"), 400, "", "semicolon")
	check(restAsk(t, api, "GET", restBase+"/nothing"), 404, "", "openapi.json")
	w := restAsk(t, api, "POST", restBase)
	check(w, 405, "", "GET or HEAD")
	if w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow is %q", w.Header().Get("Allow"))
	}
	for i := range 60 {
		ledger.rows = append(ledger.rows, store.Row{Minute: usageNow, Gateway: "g", Key: store.Key{Service: fmt.Sprint(i)}, Bytes: store.Bytes{Egress: 1}})
	}
	check(restAsk(t, api, "GET", restBase+"?lookback_duration=1000m&group_by=service"), 400, "group_by", "the maximum is 100000")
	ledger.err = errors.New("postgres://user:secret@db: connection refused")
	w = restAsk(t, api, "GET", restBase)
	check(w, 503, "", "try again later")
	if strings.Contains(w.Body.String(), "secret") || w.Header().Get("Retry-After") == "" {
		t.Errorf("%s %s", w.Header(), w.Body)
	}
}

func TestRESTCSV(t *testing.T) {
	api, _ := restServer()
	for _, ask := range [][]string{
		{restBase + "?format=csv&lookback_duration=2m&group_by=service"},
		{restBase + "?lookback_duration=2m&group_by=service", "Accept", "text/csv;q=0.9, text/html"},
		{restBase + "/total?format=csv&group_by=service", "Accept", "application/json"},
	} {
		w := restAsk(t, api, "GET", ask[0], ask[1:]...)
		records, err := csv.NewReader(w.Body).ReadAll()
		if err != nil || len(records) < 3 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/csv") {
			t.Errorf("%v: %v %v %v", ask, w.Header(), records, err)
		}
	}
	for _, accept := range []string{"text/csv, application/json", "*/*", "text/csv;q=0", ""} {
		if w := restAsk(t, api, "GET", restBase, "Accept", accept); w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("Accept %q gives %s", accept, w.Header().Get("Content-Type"))
		}
	}
}

func TestRESTTags(t *testing.T) {
	api, ledger := restServer()
	over, under := restBase+"?from=2026-03-01T12:30:00Z&to=2026-03-01T12:33:00Z", restBase+"?lookback_duration=5m"
	tag := restAsk(t, api, "GET", over).Header().Get("ETag")
	tagNow := restAsk(t, api, "GET", under).Header().Get("ETag")
	api.Now = func() time.Time { return usageNow.Add(time.Second) }
	for _, given := range []string{tag, `"x", ` + tag, "W/" + tag, "*"} {
		w := restAsk(t, api, "GET", over, "If-None-Match", given)
		if w.Code != http.StatusNotModified || w.Body.Len() > 0 || w.Header().Get("ETag") != tag {
			t.Errorf("If-None-Match %s: %d %s", given, w.Code, w.Body)
		}
	}
	if w := restAsk(t, api, "GET", under, "If-None-Match", tagNow); w.Code != 200 {
		t.Errorf("a range under way: %d", w.Code)
	}
	ledger.rows[0].Egress++
	if w := restAsk(t, api, "GET", over, "If-None-Match", tag); w.Code != 200 || w.Header().Get("ETag") == tag {
		t.Errorf("after a late row: %d", w.Code)
	}
	get, head := restAsk(t, api, "GET", over), restAsk(t, api, "HEAD", over)
	if head.Body.Len() > 0 || head.Code != 200 || head.Header().Get("Content-Length") != fmt.Sprint(get.Body.Len()) || head.Header().Get("ETag") != get.Header().Get("ETag") {
		t.Errorf("HEAD: %d %v", head.Code, head.Header())
	}
}

// Queries of the store are aligned to whole windows. The totals of a month need few
// windows.
func TestRESTAsksTheStoreForLittle(t *testing.T) {
	api, ledger := restServer()
	restAsk(t, api, "GET", restBase+"/total?from=2026-01-30T22:58:00Z")
	var got []string
	for _, q := range ledger.asked {
		got = append(got, fmt.Sprintf("%d of %s", int(q.To.Sub(q.From)/q.Step), stepText(q.Step)))
	}
	if s := strings.Join(got, ", "); s != "2 of 1m, 1 of 1h, 29 of 1d, 12 of 1h, 35 of 1m" {
		t.Errorf("asked for %s", s)
	}
}
