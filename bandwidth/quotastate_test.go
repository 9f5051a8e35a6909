package bandwidth

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth/notify"
)

// The tests of the REST endpoints read quota states from a file: one at the start of its
// period, and one with every field.
func TestQuotaStatesAreThoseOfTheRESTTests(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 34, 20, 500_000_000, time.UTC)
	states := []QuotaState{
		{Name: "payment", Level: "backend", Service: "payment", Direction: "egress", Allocated: 10, AtLimit: "notify", State: QuotaOK, Thresholds: []ThresholdState{}},
		{
			Name: "api", Level: "group", Group: "/api", Consumer: "alice", Direction: "total", Allocated: 10, Used: 11, Share: 110.5, AtLimit: "block", State: QuotaBlocked,
			Forecast: notify.Forecast{AtEnd: new(int64(20)), FullAt: &at}, Period: notify.Period{Name: "month", Start: at, End: at, TimeZone: "UTC"},
			Thresholds: []ThresholdState{{Percent: 80, CrossedAt: &at, Deliveries: []notify.DeliveryState{{Channel: "mail", State: "failed", Attempts: 3, Error: "refused"}}}, {Percent: 90, Deliveries: []notify.DeliveryState{}}},
		},
	}
	got, err := json.MarshalIndent(states, "", "\t")
	must(t, err)
	const file = "api/testdata/quotas.json"
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(append(got, '\n'), want) {
		t.Errorf("%s differs (%v) from:\n%s", file, err, got)
	}
}
