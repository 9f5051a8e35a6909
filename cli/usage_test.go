package cli

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// usageAdmin starts an admin API that responds with a status and a body, and records
// the request.
func usageAdmin(t *testing.T, status int, body string) (address string, asked *http.Request) {
	asked = new(http.Request)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = *r
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

var usageNow = time.Date(2026, 3, 1, 12, 34, 20, 0, time.UTC)

func usagePoints() string {
	point := func(at, direction, service, used string) string {
		return fmt.Sprintf(`{"time":"2026-03-01T%s+00:00","type":%q,"service":%q,"route":null,"bandwidth_used":%s}`, at, direction, service, used)
	}
	return "[" + strings.Join([]string{
		point("12:33:00", "egress", "orders", "0"), point("12:33:00", "ingress", "orders", "0"),
		point("12:33:00", "egress", "payment", "1000"), point("12:33:00", "ingress", "payment", "500"),
		point("12:34:00", "egress", "orders", "null"), point("12:34:00", "ingress", "orders", "null"),
		point("12:34:00", "egress", "payment", "3000000"), point("12:34:00", "ingress", "payment", "0"),
		point("12:34:20.000000", "egress", "orders", "1000000"), point("12:34:20.000000", "ingress", "orders", "0"),
		point("12:34:20.000000", "egress", "payment", "null"), point("12:34:20.000000", "ingress", "payment", "null"),
	}, ",") + "]"
}

func TestUsagePrintsATable(t *testing.T) {
	time.Local = time.UTC
	address, asked := usageAdmin(t, 200, usagePoints())
	ask := usageAsk{since: "2m", by: "service", address: address, services: []string{"payment", "orders"}}
	var out bytes.Buffer
	if err := ask.run(&out, usageNow); err != nil {
		t.Fatal(err)
	}
	const want = `Since 2026-03-01 12:32 UTC

SERVICE  INGRESS  EGRESS    SHARE  PER 1M
payment    500 B  3.0 MB   75.0 %  ▁█·
orders       0 B  1.0 MB   25.0 %  ▁·█
total      500 B  4.0 MB  100.0 %  ▁█▃
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
	if got := asked.URL.String(); got != "/rgate/bandwidth?from=1772368340&group_by=service&service=payment&service=orders&step=1m" {
		t.Errorf("asked for %s", got)
	}
}

func TestUsageOfOneDirection(t *testing.T) {
	time.Local = time.UTC
	address, _ := usageAdmin(t, 200, `[{"time":"2026-03-01T12:33:00+00:00","type":"egress","service":"payment","route":null,"bandwidth_used":1000}]`)
	for direction, want := range map[string]string{
		"egress":  "SERVICE  EGRESS    SHARE  PER 1M\npayment  1.0 kB  100.0 %  █\ntotal    1.0 kB  100.0 %  █\n",
		"ingress": "SERVICE  INGRESS  SHARE  PER 1M\n",
	} {
		var out bytes.Buffer
		ask := usageAsk{since: "2m", by: "service", address: address, direction: direction}
		if err := ask.run(&out, usageNow); err != nil || !strings.Contains(out.String(), want[:strings.Index(want, " ")]) || direction == "egress" && !strings.Contains(out.String(), want) {
			t.Errorf("%v: got\n%s\nwant\n%s", err, &out, want)
		}
		if other := map[string]string{"egress": "INGRESS", "ingress": "EGRESS"}[direction]; strings.Contains(out.String(), other) {
			t.Errorf("%s has a column for the other direction:\n%s", direction, &out)
		}
	}
}

func TestUsageFoldsDays(t *testing.T) {
	var points []string
	for i := range 5001 {
		points = append(points, fmt.Sprintf(`{"time":"%d","type":"egress","service":"web","bandwidth_used":1}`, i))
	}
	address, _ := usageAdmin(t, 200, "["+strings.Join(points, ",")+"]")
	for step, want := range map[string]struct {
		head    string
		columns int
	}{"": {"PER 84D", 60}, "1d": {"PER 1D", 5001}} {
		ask := usageAsk{since: "5000d", step: step, by: "service", address: address}
		var out bytes.Buffer
		if err := ask.run(&out, usageNow); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(out.String(), "\n")
		if got := strings.Count(lines[3], "█") + strings.Count(lines[3], "▅"); got != want.columns || !strings.HasSuffix(lines[2], want.head) || !strings.Contains(lines[3], "5.0 kB") {
			t.Errorf("got %d columns, want %d:\n%s", got, want.columns, &out)
		}
	}
}

func TestUsagePrintsJSONAsItIs(t *testing.T) {
	address, _ := usageAdmin(t, 200, usagePoints())
	ask := usageAsk{since: "2m", by: "service", address: address, asJSON: true}
	var out bytes.Buffer
	if err := ask.run(&out, usageNow); err != nil || out.String() != usagePoints() {
		t.Errorf("%v: %s", err, &out)
	}
}

func TestUsageOfNothing(t *testing.T) {
	address, _ := usageAdmin(t, 200, "[]")
	ask := usageAsk{since: "2m", by: "service", address: address}
	var out bytes.Buffer
	if err := ask.run(&out, usageNow); err != nil || !strings.Contains(out.String(), "--since") {
		t.Errorf("%v: %s", err, &out)
	}
}

func TestUsageSaysWhatToDo(t *testing.T) {
	gone, _ := usageAdmin(t, 200, "[]")
	server := httptest.NewServer(nil)
	server.Close()
	noAccount, _ := usageAdmin(t, 404, "404 page not found\n")
	silent, _ := usageAdmin(t, 200, "")
	page, _ := usageAdmin(t, 200, "<html>hello</html>")
	refuses, _ := usageAdmin(t, 400, `{"status":400,"error":"unknown grouping \"backend\": use service"}`)
	for _, test := range []struct {
		ask  usageAsk
		says string
	}{
		{usageAsk{address: server.URL}, "start one, or set the address of its admin API with --address or --config"},
		{usageAsk{address: noAccount}, "has no bandwidth reports (HTTP 404): set the address"},
		{usageAsk{address: refuses}, `unknown grouping "backend": use service`},
		{usageAsk{address: silent}, "is not the admin API of a gateway (response: nothing): set its address with --address or --config"},
		{usageAsk{address: silent, asJSON: true}, "is not the admin API of a gateway"},
		{usageAsk{address: page}, `response: "<html>hello`},
		{usageAsk{address: gone, since: "soon"}, "use a duration of at least 1m, such as 90m, 24h or 7d"},
		{usageAsk{file: "testdata/nowhere.yaml"}, "no such file"},
	} {
		if test.ask.since == "" {
			test.ask.since = "24h"
		}
		err := test.ask.run(new(bytes.Buffer), usageNow)
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("got %v, want an error that says %q", err, test.says)
		}
	}
}

func TestUsageHasFewColumns(t *testing.T) {
	for since, want := range map[time.Duration]string{
		time.Minute: "1m", time.Hour: "5m", 24 * time.Hour: "30m", 7 * 24 * time.Hour: "4h", 30 * 24 * time.Hour: "1d",
	} {
		if got := stepFor(since); got != want {
			t.Errorf("%v: %s, want %s", since, got, want)
		}
	}
}
