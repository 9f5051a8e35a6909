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

// usageAdmin is an admin API that answers with a status and a body, and what it was
// asked for.
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
	refuses, _ := usageAdmin(t, 400, `{"status":400,"error":"\"backend\" cannot be told apart: use service"}`)
	for _, test := range []struct {
		ask  usageAsk
		says string
	}{
		{usageAsk{address: server.URL}, "start one, or say where its admin API is with --address or --config"},
		{usageAsk{address: noAccount}, "set bandwidth in the gateway's configuration"},
		{usageAsk{address: refuses}, `"backend" cannot be told apart: use service`},
		{usageAsk{address: gone, since: "soon"}, "use one such as 90m, 24h or 7d"},
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
