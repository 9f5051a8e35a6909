package dashboard

import (
	"os"
	"testing"
	"time"
)

// demoPage makes the page of an imagined shop.
func demoPage(t testing.TB, query string) []byte {
	t.Helper()
	rows, requests := demoRows(demoNow.Truncate(time.Minute).Add(-6*time.Hour-10*time.Minute), demoNow, demoServices)
	d := demoDashboard(t, &ledgerOfRows{rows, requests})
	a, err := parseAsk(query)
	if err != nil {
		t.Fatal(err)
	}
	body, err := d.render(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestRenderDemo(t *testing.T) {
	body := demoPage(t, "range=6h")
	t.Log(len(body))
	os.WriteFile("/tmp/dash.html", body, 0o644)
}
