package dashboard

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/stats"
)

// get sends a request to the dashboard.
func (d *Dashboard) get(t testing.TB, method, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	if err := d.serve(w, httptest.NewRequest(method, target, nil)); err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return w
}

// demoLedger returns an account with the demo's usage since reach ago.
func demoLedger(t testing.TB, reach time.Duration) account {
	t.Helper()
	return demoRows(demoNow.Truncate(time.Minute).Add(-reach), demoNow, demoServices).store(t)
}

func TestResponses(t *testing.T) {
	d := demoDashboard(t, demoLedger(t, 2*time.Hour))
	for _, tc := range []struct {
		method, target string
		status         int
		contentType    string
	}{
		{"GET", "/dashboard", 200, "text/html; charset=utf-8"},
		{"HEAD", "/dashboard?range=5m", 200, "text/html; charset=utf-8"},
		{"GET", "/dashboard/", 404, "text/plain; charset=utf-8"},
		{"GET", "/dashboard/style.css", 404, "text/plain; charset=utf-8"},
		{"POST", "/dashboard", 405, "text/plain; charset=utf-8"},
		{"GET", "/dashboard?range=1y", 400, "text/plain; charset=utf-8"},
		{"GET", "/dashboard?range=%zz", 400, "text/plain; charset=utf-8"},
	} {
		got := d.get(t, tc.method, tc.target)
		h := got.Header()
		if got.Code != tc.status || h.Get("Content-Type") != tc.contentType {
			t.Errorf("%s %s: got %d %s", tc.method, tc.target, got.Code, h.Get("Content-Type"))
		}
		if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "same-origin" ||
			!strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") || !strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
			t.Errorf("%s %s: the header is %v", tc.method, tc.target, h)
		}
		if (got.Body.Len() == 0) != (tc.method == "HEAD") || h.Get("Content-Length") == "0" {
			t.Errorf("%s %s: %d bytes, %s announced", tc.method, tc.target, got.Body.Len(), h.Get("Content-Length"))
		}
		if tc.status == 405 && h.Get("Allow") != "GET, HEAD" {
			t.Errorf("allowed is %q", h.Get("Allow"))
		}
	}
}

// elements calls f for each element of a page.
func elements(t testing.TB, page string, f func(*html.Node)) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for n := range root.Descendants() {
		if n.Type == html.ElementNode {
			f(n)
		}
	}
}

func textOf(n *html.Node) string {
	var text strings.Builder
	for inner := range n.Descendants() {
		if inner.Type == html.TextNode {
			text.WriteString(inner.Data)
		}
	}
	return text.String()
}

// The Content-Security-Policy allows exactly the script and the styles in the page.
func TestPageKeepsItsOwnPolicy(t *testing.T) {
	got := demoDashboard(t, demoLedger(t, 2*time.Hour)).get(t, "GET", "/dashboard")
	allowed := got.Header().Get("Content-Security-Policy")
	ids := make(map[string]bool)
	count := 0
	elements(t, got.Body.String(), func(n *html.Node) {
		if n.Data == "style" || n.Data == "script" {
			count++
			if hash := hashOf(textOf(n)); !strings.Contains(allowed, hash) {
				t.Errorf("the <%s> of the page is %s, which its policy does not allow", n.Data, hash)
			}
		}
		for _, a := range n.Attr {
			switch {
			case a.Key == "style" || strings.HasPrefix(a.Key, "on"):
				t.Errorf("<%s> has %s=%q, which the policy forbids", n.Data, a.Key, a.Val)
			case a.Key == "src" || a.Key == "href" && !strings.HasPrefix(a.Val, "?") && !strings.HasPrefix(a.Val, "#") && a.Val != "data:,":
				t.Errorf("<%s> loads %q", n.Data, a.Val)
			case a.Key == "id":
				if ids[a.Val] {
					t.Errorf("the id %q is there twice", a.Val)
				}
				ids[a.Val] = true
			}
		}
	})
	if count != 2 {
		t.Errorf("there are %d styles and scripts", count)
	}
	for _, name := range regexp.MustCompile(`aria-labelledby="([^"]+)"`).FindAllStringSubmatch(got.Body.String(), -1) {
		if !ids[name[1]] {
			t.Errorf("nothing has the id %q, which names something", name[1])
		}
	}
}

// Names and addresses from untrusted sources are escaped everywhere.
func TestHostileNamesAreText(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(2)>'&{{.}}` + "\u202e</title></style></svg>"
	from := demoRows(demoNow.Add(-time.Hour), demoNow, demoServices)
	for i := range from.bytes {
		row := &from.bytes[i]
		row.Service, row.Route, row.Gateway = evil+row.Service, evil+row.Route, evil
	}
	for i := range from.requests {
		row := &from.requests[i]
		row.Service, row.Route, row.Gateway = evil+row.Service, evil+row.Route, evil
	}
	d := demoDashboard(t, from.store(t))
	d.Gateway = evil
	d.log = demoErrors{{Time: demoNow, Service: evil, Route: evil, Container: evil, Method: evil, URL: "javascript:alert(3)//" + evil, Status: 500, Error: evil}}
	place := evil
	for _, end := range []func(){
		status.Services.Publish(place, func() any {
			return map[string]any{"services": []any{map[string]any{"name": evil, "status": evil, "instances": []any{map[string]any{"container": evil, "address": evil, "reason": evil, "status": evil}},
				"circuit_breaker": []any{map[string]any{"state": evil}}}}}
		}),
		status.Quotas.Publish(place, func() any {
			failed := map[string]any{"channel": evil, "state": "failed", "error": evil}
			return []any{map[string]any{"name": evil, "direction": evil, "consumer": evil, "at_limit": evil, "state": evil, "allocated": 10, "used": 5,
				"thresholds": []any{map[string]any{"percent": 50, "deliveries": []any{failed}}}}}
		}),
		status.Dependencies.Publish(status.Process{}, func() status.Dependency { return status.Dependency{Name: evil, Error: evil} }),
	} {
		t.Cleanup(end)
	}
	a := pageParams{timeRange: timeRanges[1], gateway: evil}
	for _, target := range []string{a.query(), pageParams{timeRange: timeRanges[1], service: evil + "images", route: evil + "/images"}.query()} {
		page := d.get(t, "GET", "/dashboard"+target).Body.String()
		scripts, named := 0, 0
		elements(t, page, func(n *html.Node) {
			switch n.Data {
			case "script":
				scripts++
			case "img", "iframe", "object":
				t.Errorf("there is an <%s>", n.Data)
			case "h1":
				if textOf(n) == evil {
					named++
				}
			}
			for _, attr := range n.Attr {
				if strings.HasPrefix(attr.Key, "on") || attr.Key == "href" && strings.HasPrefix(attr.Val, "javascript:") || attr.Key == "style" {
					t.Errorf("<%s> has %s=%q", n.Data, attr.Key, attr.Val)
				}
			}
		})
		if scripts != 1 || named != 1 || strings.Contains(page, "<script>alert") {
			t.Errorf("there are %d scripts, and %d headings of that name", scripts, named)
		}
	}
}

// tableOf returns the cells of the first table after the element with an ID.
func tableOf(t testing.TB, page, id string) (rows [][]string) {
	t.Helper()
	seen := false
	elements(t, page, func(n *html.Node) {
		for _, a := range n.Attr {
			seen = seen || a.Key == "id" && a.Val == id
		}
		if !seen || n.Data != "table" || rows != nil {
			return
		}
		for tr := range n.Descendants() {
			if tr.Data != "tr" {
				continue
			}
			var cells []string
			for c := range tr.ChildNodes() {
				if c.Type == html.ElementNode {
					cells = append(cells, strings.ReplaceAll(strings.Join(strings.Fields(strings.ReplaceAll(textOf(c), "\u00a0", "~")), " "), "~", " "))
				}
			}
			rows = append(rows, cells)
		}
	})
	if rows == nil {
		t.Fatalf("no table after %q", id)
	}
	return rows
}

// The values of a small account, calculated by hand.
func TestPageShowsTheFigures(t *testing.T) {
	sketch := demoSketch(newRandom(), 1000, 0.1)
	minute := demoNow.Truncate(time.Minute).Add(-3 * time.Minute)
	from := accountRows{
		bytes: []store.Row{
			{Minute: minute, Gateway: "g", Key: store.Key{Service: "a", Route: "/a"}, Bytes: store.Bytes{Ingress: 600, Egress: 60_000}},
			{Minute: minute, Gateway: "g", Key: store.Key{Service: "b", Route: "/b"}, Bytes: store.Bytes{Egress: 6_000}},
			{Minute: minute.Add(time.Minute), Gateway: "g", Key: store.Key{Service: "a", Route: "/a"}, Bytes: store.Bytes{Egress: 12_000}},
		},
		requests: []store.RequestRow{
			{Minute: minute, Gateway: "g", Service: "a", Route: "/a", Requests: 120, Errors: 30, Seconds: 12, Sketch: sketch},
			{Minute: minute, Gateway: "g", Service: "b", Route: "/b", Requests: 60, Seconds: 60, Sketch: sketch},
		},
	}
	d := demoDashboard(t, from.store(t))
	page := d.get(t, "GET", "/dashboard?range=5m").Body.String()
	for id, want := range map[string][]string{
		"requests-t": {"14:29", "3/s"},
		"errors-t":   {"14:29", "16.7 %"},
		"failures-t": {"4 s ago", "503"},
		"egress-t":   {"14:29", "1 KB/s", "100 B/s", "1.1 KB/s"},
		"ingress-t":  {"14:29", "10 B/s", "0 B/s", "10 B/s"},
		"slowest-t":  {"/b b", "60", "1 s"},
	} {
		found := slices.ContainsFunc(tableOf(t, page, id), func(row []string) bool { return len(row) >= len(want) && slices.Equal(row[:len(want)], want) })
		if !found {
			t.Errorf("%s has no row %q: %q", id, want, tableOf(t, page, id))
		}
	}
	rows := tableOf(t, page, "requests-t")
	if last := rows[len(rows)-1]; last[0] != "14:27" || last[1] != "–" || rows[1][0] != "14:32 (until now)" {
		t.Errorf("the requests are %q", rows)
	}
	for _, want := range []string{"<b>180</b>", "<b>16.7\u00a0%</b>", "<b>78\u00a0KB</b>", "<b>600\u00a0B</b>"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	one := d.get(t, "GET", "/dashboard?range=5m&service=b").Body.String()
	if rows := tableOf(t, one, "egress-t"); !slices.Equal(rows[0], []string{"From", "/b"}) || !strings.Contains(one, `<option value="b" selected>`) {
		t.Errorf("of service b: %q", rows[0])
	}
}

// broken is an account whose store is unavailable.
type broken struct{ account }

func (broken) Requests(context.Context, store.Query) ([]store.RequestPoint, error) {
	return nil, errors.New("dial tcp 10.0.0.9:5432: connection refused")
}

// Without recorded usage, the page shows the current state and the reason. The store's
// error is only logged.
func TestPageWithoutAccount(t *testing.T) {
	for _, from := range []account{nil, broken{demoLedger(t, time.Hour)}} {
		d := demoDashboard(t, from)
		got := d.get(t, "GET", "/dashboard")
		page := got.Body.String()
		if got.Code != http.StatusOK || !strings.Contains(page, "not available") || !strings.Contains(page, "shop-checkout-3") || strings.Contains(page, "10.0.0.9") {
			t.Errorf("got %d %s", got.Code, page)
		}
	}
}

// Reports in an unknown format are ignored.
func TestStrangeReportsAreLeftOut(t *testing.T) {
	place := "strange"
	for _, what := range []any{nil, 5, "text", []any{1}, map[string]any{"services": "none", "allocated": "x"}, func() {}, []any{map[string]any{"allocated": 0, "used": 5}}} {
		t.Cleanup(status.Services.Publish(place, func() any { return what }))
		t.Cleanup(status.Quotas.Publish(place, func() any { return what }))
	}
	l := readLive("strange", nil, pageParams{})
	if len(l.backends) != 0 || len(l.quotas) != 0 {
		t.Errorf("got %+v", l)
	}
}

var _ requestLog = (*stats.RequestLog)(nil)
