package store

import (
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth/storetest"
)

func TestUsageHasWhatIsWrittenAndWhatIsNot(t *testing.T) {
	storetest.OnBothEngines(t, testUsageHasWhatIsWrittenAndWhatIsNot)
}

func testUsageHasWhatIsWrittenAndWhatIsNot(t *testing.T, store string) {
	clock := storetest.ClockAt(t, "2026-03-05T10:00:30Z")
	l := newTestLedgerOn(t, store, "test", clock)
	l.Add("test", map[Key]Bytes{{Service: "pay", Route: "/pay"}: {Ingress: 1, Egress: 10}})
	l.flushed(t)
	l.Add("test", map[Key]Bytes{{Service: "pay", Route: "/pay"}: {Ingress: 2, Egress: 20}})
	clock.Advance(time.Minute)
	l.Add("test", map[Key]Bytes{{Service: "pay", Route: "/pay"}: {Ingress: 4, Egress: 40}, {Service: "pay", Route: "/pay", Consumer: "alice"}: {Egress: 40}})

	points, err := l.Usage(t.Context(), Query{From: clock.Now().Add(-5 * time.Minute), To: clock.Now(), Step: time.Minute, GroupBy: []Dimension{ByService}})
	if err != nil {
		t.Fatal(err)
	}
	if len(points) != 2 || points[0].Bytes != (Bytes{Ingress: 3, Egress: 30}) || points[1].Bytes != (Bytes{Ingress: 4, Egress: 40}) {
		t.Errorf("points are %+v", points)
	}
	total, err := l.Total(t.Context(), Filter{}, clock.Now().Add(-time.Hour), clock.Now())
	if err != nil || total != (Bytes{Ingress: 7, Egress: 70}) {
		t.Errorf("total is %+v, %v", total, err)
	}
}
