package api

import (
	"bytes"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth/store"
)

// usageNow is the current time in the tests of reports.
var usageNow = time.Date(2026, 3, 1, 12, 34, 20, 500_000_000, time.UTC)

func usageOf(t *testing.T, query string) usageParams {
	t.Helper()
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	q, err := parseUsage(values, seriesParams, usageNow)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return q
}

func usageStamps(s timeRange) (stamps []string) {
	for i := range s.windows() {
		stamps = append(stamps, s.stamp(i))
	}
	return stamps
}

func TestUsageWindows(t *testing.T) {
	for _, test := range []struct{ query, want string }{
		{"", "12:30:00 12:31:00 12:32:00 12:33:00 12:34:00 12:34:20.500000"},
		{"lookback_duration=5m", "12:30:00 12:31:00 12:32:00 12:33:00 12:34:00 12:34:20.500000"},
		{"lookback_duration=0m", "12:34:20.500000"},
		{"lookback_duration=1m", "12:34:00 12:34:20.500000"},
		{"lookback_duration=30m&step=15m", "12:15:00 12:30:00 12:34:20.500000"},
		{"lookback_duration=20m&step=15m", "12:15:00 12:30:00 12:34:20.500000"},
		{"from=2026-03-01T12:00:00Z&to=2026-03-01T12:02:00Z", "12:01:00 12:02:00"},
		{"from=2026-03-01T12:00:30Z&to=2026-03-01T12:01:01Z", "12:01:00 12:02:00"},
		{"from=2026-03-01T12:00:10Z&to=2026-03-01T12:00:20Z", "12:01:00"},
		{"from=2026-03-01T13:00:00%2B01:00&to=2026-03-01T13:02:00%2B01:00", "12:01:00 12:02:00"},
		{"from=2026-03-01T13:00:00+01:00&to=2026-03-01T12:02:00Z", "12:01:00 12:02:00"},
		{"from=1772366400&to=1772366520.5", "12:01:00 12:02:00 12:03:00"},
		{"from=2026-03-01T12:33:00Z", "12:34:00 12:34:20.500000"},
		{"from=2026-03-01T12:33:00Z&to=2027-01-01T00:00:00Z", "12:34:00 12:34:20.500000"},
		{"from=2026-03-01T12:34:00Z&to=2026-03-01T12:34:10Z", "12:34:20.500000"},
		{"from=2026-03-01T10:30:00Z&step=1h", "11:00:00 12:00:00 12:34:20.500000"},
	} {
		s := usageOf(t, test.query).timeRange
		got := strings.ReplaceAll(strings.Join(usageStamps(s), " "), "2026-03-01T", "")
		if got = strings.ReplaceAll(got, "+00:00", ""); got != test.want {
			t.Errorf("%s: got %s, want %s", test.query, got, test.want)
		}
	}
	exact := usageNow.Truncate(time.Minute)
	if got := usageStamps(lookBack(exact, 5*time.Minute, time.Minute)); len(got) != 6 || got[5] != "2026-03-01T12:34:00.000000+00:00" {
		t.Errorf("at the turn of a minute: %v", got)
	}
}

func TestUsageDaysAreThoseOfUTC(t *testing.T) {
	s := usageOf(t, "from=2026-02-27T23:59:00-02:00&to=2026-03-01T00:00:00Z&step=1d").timeRange
	if got := strings.Join(usageStamps(s), " "); got != "2026-03-01T00:00:00+00:00" {
		t.Errorf("got %s", got)
	}
}

func TestUsageQueriesThatAreWrong(t *testing.T) {
	for _, test := range []struct{ query, parameter, says string }{
		{"lookback_duration=5", "lookback_duration", "use from and to"},
		{"lookback_duration=5h", "lookback_duration", "must be in minutes"},
		{"lookback_duration=", "lookback_duration", "must be in minutes"},
		{"lookback_duration=-5m", "lookback_duration", "must be in minutes"},
		{"lookback_duration=5m%0A", "lookback_duration", "must be in minutes"},
		{"lookback_duration=99999999999999999999m", "lookback_duration", "before 1970"},
		{"lookback_duration=20000m", "lookback_duration", "too many windows, 20001: the maximum is 11000: use step=5m"},
		{"lookback_duration=5m&from=1", "lookback_duration", "cannot be combined with from or to"},
		{"lookback_duration=5m&lookback_duration=6m", "lookback_duration", "set it once"},
		{"type=both", "type", "egress or ingress"},
		{"type=", "type", "egress or ingress"},
		{"type=Egress", "type", "egress or ingress"},
		{"from=yesterday", "from", "RFC 3339"},
		{"from=-5", "from", "RFC 3339"},
		{"from=NaN", "from", "RFC 3339"},
		{"from=99999999999999", "from", "RFC 3339"},
		{"from=1&to=soon", "to", "RFC 3339"},
		{"to=2026-03-01T12:00:00Z", "from", "to requires from"},
		{"from=2026-03-01T12:00:00Z&to=2026-03-01T12:00:00Z", "from", "before to"},
		{"from=2027-03-01T12:00:00Z&to=2027-03-01T13:00:00Z", "from", "must be in the past"},
		{"from=2027-03-01T12:00:00Z", "from", "must be before to"},
		{"from=1", "step", "use a shorter range"},
		{"step=7m", "step", "divide a day"},
		{"step=0m", "step", "divide a day"},
		{"step=2d", "step", "divide a day"},
		{"step=30s", "step", "divide a day"},
		{"group_by=backend", "group_by", "service, route, consumer, gateway"},
		{"group_by=", "group_by", "service, route, consumer, gateway"},
		{"headers=yes", "headers", "true or false"},
		{"format=xml", "format", "json or csv"},
		{"servce=a", "servce", `did you mean "service"?`},
		{strings.Repeat("service=a&", 101), "service", "at most"},
	} {
		values, _ := url.ParseQuery(strings.TrimSuffix(test.query, "&"))
		_, err := parseUsage(values, seriesParams, usageNow)
		var wrong *paramError
		if err != nil {
			wrong, _ = err.(*paramError)
		}
		if test.says == "at most" && wrong != nil {
			continue
		}
		if wrong == nil || wrong.Parameter != test.parameter || !strings.Contains(wrong.Error(), test.says) {
			t.Errorf("%s: got %v (%+v), want one about %s that says %q", test.query, err, wrong, test.parameter, test.says)
		}
	}
}

func usageJSON(q usageParams, points []store.Point) string {
	var body bytes.Buffer
	q.writeJSON(&body, q.arrange(points, q.windows(), func(p *store.Point) int { return q.index(p.Start) }), q.stamp)
	return body.String()
}

func TestUsageRespondsAsTheOriginalDoes(t *testing.T) {
	q := usageOf(t, "lookback_duration=2m&type=egress&service=bun-service&route=bun-route")
	at := usageNow.Truncate(time.Minute)
	got := usageJSON(q, []store.Point{
		{Start: at.Add(-2 * time.Minute), Bytes: store.Bytes{Ingress: 7, Egress: 9_007_199_254_740_993}},
		{Start: at, Bytes: store.Bytes{Egress: 12}},
		{Start: at.Add(-3 * time.Minute), Bytes: store.Bytes{Egress: 99}}, // before the range
		{Start: at.Add(time.Minute), Bytes: store.Bytes{Egress: 99}},      // after the range
	})
	const want = `[{"time":"2026-03-01T12:33:00+00:00","type":"egress","service":"bun-service","route":"bun-route","bandwidth_used":9007199254740993},` +
		`{"time":"2026-03-01T12:34:00+00:00","type":"egress","service":"bun-service","route":"bun-route","bandwidth_used":null},` +
		`{"time":"2026-03-01T12:34:20.500000+00:00","type":"egress","service":"bun-service","route":"bun-route","bandwidth_used":12}]`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestUsageGroups(t *testing.T) {
	at := usageNow.Truncate(time.Minute)
	points := []store.Point{
		{Start: at, Gateway: "gw", Key: store.Key{Service: "b", Route: `/"q"`}, Bytes: store.Bytes{Ingress: 1, Egress: 2, IngressHeaders: 3, EgressHeaders: 4}},
		{Start: at, Gateway: "gw", Key: store.Key{Service: "a", Route: "/a"}, Bytes: store.Bytes{Ingress: 5}},
	}
	q := usageOf(t, "lookback_duration=0m&group_by=service,route&group_by=gateway&headers=true")
	const now = `{"time":"2026-03-01T12:34:20.500000+00:00",`
	want := `[` + now + `"type":"egress","service":"a","route":"/a","gateway":"gw","bandwidth_used":0,"header_bytes":0},` +
		now + `"type":"ingress","service":"a","route":"/a","gateway":"gw","bandwidth_used":5,"header_bytes":0},` +
		now + `"type":"egress","service":"b","route":"/\"q\"","gateway":"gw","bandwidth_used":2,"header_bytes":4},` +
		now + `"type":"ingress","service":"b","route":"/\"q\"","gateway":"gw","bandwidth_used":1,"header_bytes":3}]`
	if got := usageJSON(q, points); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	var body bytes.Buffer
	q.writeCSV(&body, q.arrange(points, 1, func(p *store.Point) int { return 0 }), q.stamp, true)
	want = "time,type,service,route,gateway,bandwidth_used,header_bytes\r\n" +
		"2026-03-01T12:34:20.500000+00:00,egress,a,/a,gw,0,0\r\n" +
		"2026-03-01T12:34:20.500000+00:00,ingress,a,/a,gw,5,0\r\n" +
		"2026-03-01T12:34:20.500000+00:00,egress,b,\"/\"\"q\"\"\",gw,2,4\r\n" +
		"2026-03-01T12:34:20.500000+00:00,ingress,b,\"/\"\"q\"\"\",gw,1,3\r\n"
	if body.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &body, want)
	}
}

// Names in the filter are included even if unused. Names that are only grouped by are
// included if used.
func TestUsageOfUnusedNames(t *testing.T) {
	for query, want := range map[string]string{
		"lookback_duration=0m&type=egress":                               `[{"time":"2026-03-01T12:34:20.500000+00:00","type":"egress","service":null,"route":null,"bandwidth_used":null}]`,
		"lookback_duration=0m&type=egress&service=a&service=b":           `[{"time":"2026-03-01T12:34:20.500000+00:00","type":"egress","service":null,"route":null,"bandwidth_used":null}]`,
		"lookback_duration=0m&type=egress&group_by=service":              `[]`,
		"lookback_duration=0m&type=egress&group_by=service&service=a":    `[{"time":"2026-03-01T12:34:20.500000+00:00","type":"egress","service":"a","route":null,"bandwidth_used":null}]`,
		"lookback_duration=0m&type=egress&consumer=alice&gateway=kong":   `[{"time":"2026-03-01T12:34:20.500000+00:00","type":"egress","service":null,"route":null,"consumer":"alice","gateway":"kong","bandwidth_used":null}]`,
		"lookback_duration=0m&type=egress&consumer=alice&consumer=alice": `[{"time":"2026-03-01T12:34:20.500000+00:00","type":"egress","service":null,"route":null,"consumer":"alice","bandwidth_used":null}]`,
	} {
		if got := usageJSON(usageOf(t, query), nil); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", query, got, want)
		}
	}
}

func TestPiecesCoverASpanExactly(t *testing.T) {
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, from := range []int{0, 1, 59, 60, 61, 1439, 1440, 1441, 3000} {
		for _, length := range []int{1, 59, 60, 61, 119, 120, 1440, 1500, 2880, 2881, 44640} {
			at, end, count := begin.Add(time.Duration(from)*oneMinute), begin.Add(time.Duration(from+length)*oneMinute), 0
			for _, p := range pieces(at, end) {
				if !p.from.Equal(at) || p.to.Sub(p.from)%p.step != 0 || !windowOf(p.from, p.step).Equal(p.from) {
					t.Fatalf("%d+%d: %v is not the rest from %v on", from, length, p, at)
				}
				at, count = p.to, count+int(p.to.Sub(p.from)/p.step)
			}
			if !at.Equal(end) || count > 59+23+31+23+59 {
				t.Errorf("%d+%d: it ends at %v, after %d windows", from, length, at, count)
			}
		}
	}
}

func FuzzUsageQuery(f *testing.F) {
	for _, query := range []string{
		"lookback_duration=5m&type=egress&service=a&route=b", "from=1&to=2&step=1d", "from=2026-03-01T13:00:00+01:00&group_by=service,gateway&headers=true&format=csv",
		"lookback_duration=999999m&step=12h", "from=1e9&to=1e10",
	} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		q, err := parseUsage(values, seriesParams, usageNow)
		if err != nil {
			return
		}
		if n := q.windows(); n < 1 || n > maxWindows {
			t.Fatalf("%d windows from %v to %v", n, q.from, q.to)
		}
		if !windowOf(q.from, q.step).Equal(q.from) || !windowOf(q.to, q.step).Equal(q.to) {
			t.Fatalf("%v to %v are no whole windows of %v", q.from, q.to, q.step)
		}
		if q.to.After(usageNow) == q.isOver() {
			t.Fatalf("%v: is it over?", q.to)
		}
		stamps := usageStamps(q.timeRange)
		for i, stamp := range stamps {
			if _, err := time.Parse(time.RFC3339Nano, stamp); err != nil || i > 0 && stamp <= stamps[i-1] {
				t.Fatalf("stamp %d is %s: %v", i, stamp, err)
			}
		}
	})
}

func BenchmarkUsageJSON(b *testing.B) {
	values, _ := url.ParseQuery("lookback_duration=1440m&group_by=service&type=egress")
	q, err := parseUsage(values, seriesParams, usageNow)
	if err != nil {
		b.Fatal(err)
	}
	var points []store.Point
	for i := range q.windows() {
		points = append(points, store.Point{Start: q.from.Add(time.Duration(i) * q.step), Key: store.Key{Service: "payment"}, Bytes: store.Bytes{Egress: int64(i) * 1000}})
	}
	b.ReportAllocs()
	for b.Loop() {
		var body bytes.Buffer
		q.writeJSON(&body, q.arrange(points, q.windows(), func(p *store.Point) int { return q.index(p.Start) }), q.stamp)
	}
}
