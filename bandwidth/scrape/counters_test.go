package scrape

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/rgate/rgate/bandwidth/store"
)

func countersIn(t *testing.T, metrics string) reading {
	t.Helper()
	r, err := read(strings.NewReader(metrics), 100)
	if err != nil {
		t.Fatalf("%v in\n%s", err, metrics)
	}
	return r
}

// countersSum returns all bytes of a reading.
func countersSum(t *testing.T, r reading) map[store.Key]store.Bytes {
	t.Helper()
	m := store.SourceState{Scraped: 1}
	sum, _, err := delta(m, r, 2, 100)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func TestCountersOfGateways(t *testing.T) {
	for name, test := range map[string]struct {
		metrics string
		want    map[store.Key]store.Bytes
	}{
		"Kong 2": {`# TYPE kong_bandwidth counter
kong_bandwidth{type="egress",service="bun-service",route="bun-route"} 1277
kong_bandwidth{type="ingress",service="bun-service",route="bun-route"} 254
kong_latency_bucket{type="kong",service="bun-service",route="bun-route",le="1"} 3
`, map[store.Key]store.Bytes{{Service: "bun-service", Route: "bun-route"}: {Ingress: 254, Egress: 1277}}},
		"Kong 3": {`# TYPE kong_bandwidth_bytes counter
kong_bandwidth_bytes{service="s",route="r",direction="egress",workspace="default",consumer=""} 10
kong_bandwidth_bytes{service="s",route="r",direction="egress",workspace="default",consumer="alice"} 5
kong_bandwidth_bytes{service="s",route="r",direction="egress",workspace="other",consumer="alice"} 2
kong_bandwidth_bytes{service="s",route="r",direction="sideways",workspace="other",consumer="alice"} 99
`, map[store.Key]store.Bytes{{Service: "s", Route: "r"}: {Egress: 17}, {Service: "s", Route: "r", Consumer: "alice"}: {Egress: 7}}},
		"Traefik": {`# TYPE traefik_service_requests_bytes_total counter
traefik_service_requests_bytes_total{code="200",method="GET",protocol="http",service="whoami@docker"} 0
traefik_service_requests_bytes_total{code="200",method="POST",protocol="http",service="whoami@docker"} 40
# TYPE traefik_service_responses_bytes_total counter
traefik_service_responses_bytes_total{code="200",method="GET",protocol="http",service="whoami@docker"} 3.5e+02
traefik_router_responses_bytes_total{code="200",method="GET",protocol="http",router="w",service="whoami@docker"} 350
`, map[store.Key]store.Bytes{{Service: "whoami@docker"}: {Ingress: 40, Egress: 350}}},
		"rgate, also with Kong's names": {`# TYPE rgate_bandwidth_bytes_total counter
rgate_bandwidth_bytes_total{gateway="g",service="s",route="/s",direction="egress"} 9
rgate_bandwidth_bytes_total{gateway="h",service="s",route="/s",direction="egress"} 1
rgate_bandwidth_bytes_total{gateway="g",service="",route="_default",direction="egress"} 4
rgate_bandwidth_header_bytes_total{gateway="g",service="s",route="/s",direction="ingress"} 3
kong_bandwidth_bytes{service="s",route="/s",direction="egress",workspace="default",consumer=""} 9
`, map[store.Key]store.Bytes{{Service: "s", Route: "/s"}: {Egress: 10, IngressHeaders: 3}, {Service: "_none", Route: "_default"}: {Egress: 4}}},
		"without a type": {"kong_bandwidth{type=\"egress\",service=\"s\",route=\"r\"} 7\n", map[store.Key]store.Bytes{{Service: "s", Route: "r"}: {Egress: 7}}},
		"no traffic yet": {"kong_datastore_reachable 1\n", map[store.Key]store.Bytes{}},
	} {
		if got := countersSum(t, countersIn(t, test.metrics)); !maps.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

func TestCountersThatAreWrong(t *testing.T) {
	var many strings.Builder
	for i := range 101 {
		fmt.Fprintf(&many, "kong_bandwidth{type=\"egress\",service=\"s%d\"} 1\n", i)
	}
	for metrics, says := range map[string]string{
		"<!DOCTYPE html><html></html>\n": "parsing",
		"":                               "no metrics",
		"kong_bandwidth{type=\"egress\",service=\"s\"} NaN\n":  `invalid value NaN of kong_bandwidth{service="s", type="egress"}: must be at least 0 and below 2^63`,
		"kong_bandwidth{type=\"egress\",service=\"s\"} -1\n":   "invalid value -1 of ",
		"kong_bandwidth{type=\"egress\",service=\"s\"} +Inf\n": "invalid value +Inf of ",
		many.String(): "increase max_series",
	} {
		if _, err := read(strings.NewReader(metrics), 100); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.60s: got %v, want an error that says %q", metrics, err, says)
		}
	}
}

// countersStep is one scrape of a source with one counter, and the expected delta.
type countersStep struct {
	what    string
	started float64
	values  string // name=value, separated by spaces
	want    int64
}

func TestCountersGrow(t *testing.T) {
	for name, test := range map[string]struct {
		since int64
		steps []countersStep
	}{
		"the first reading is where counting begins": {100, []countersStep{
			{"first", 0, "a=1000", 0}, {"then", 0, "a=1010", 10}, {"idle", 0, "a=1010", 0},
		}},
		"all that a process counted that began after it was asked for is new": {100, []countersStep{
			{"first", 101, "a=1000", 1000}, {"then", 101, "a=1010", 10},
		}},
		"a process that began before is not": {100, []countersStep{{"first", 99, "a=1000", 0}, {"then", 99, "a=1001", 1}}},
		"a counter that appears begins at zero": {100, []countersStep{
			{"first", 0, "a=5", 0}, {"b appears", 0, "a=6 b=30", 31}, {"both", 0, "a=6 b=31", 1},
		}},
		"a counter that falls begins at zero": {100, []countersStep{
			{"first", 0, "a=1000", 0}, {"restart", 0, "a=30", 30}, {"then", 0, "a=31", 1},
		}},
		"a counter that comes back goes on": {100, []countersStep{
			{"first", 0, "a=1000 b=1", 0}, {"gone", 0, "b=1", 0}, {"back", 0, "a=1002 b=1", 2},
		}},
		"a process that began anew has counted all it has": {100, []countersStep{
			{"first", 50, "a=10", 0}, {"more than before the restart", 1150, "a=25", 25}, {"then", 1150, "a=26", 1},
		}},
		"a clock change is not a restart": {100, []countersStep{
			{"first", 50, "a=1000", 0}, {"a little", 52, "a=1001", 1}, {"a lot, but before the last scrape", 900, "a=1002", 1},
		}},
	} {
		m := store.SourceState{Since: test.since}
		for i, step := range test.steps {
			at := int64(1000 + 100*i)
			r := reading{counters: make(map[string]counter), started: step.started}
			for field := range strings.FieldsSeq(step.values) {
				var c counter
				id, value, _ := strings.Cut(field, "=")
				fmt.Sscan(value, &c.value)
				c.Service, c.direction = "s", store.Egress
				r.counters[id] = c
			}
			got, next, err := delta(m, r, at, 100)
			if err != nil {
				t.Fatal(err)
			}
			if sum := got[store.Key{Service: "s"}].Egress; sum != step.want {
				t.Errorf("%s: %s: got %d, want %d", name, step.what, sum, step.want)
			}
			m = next
		}
	}
}

// The sum of all deltas is the number of bytes since the first scrape, despite missed
// scrapes and restarts. Only the bytes between the last scrape and a restart are lost.
func TestCountersAddUp(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		m := store.SourceState{Since: 1}
		var total, counted, value, lost, last int64
		begun := false
		for at := int64(10); at < 200; at++ {
			n := rnd.Int64N(1000)
			value += n
			if begun {
				total += n
			}
			if rnd.IntN(20) == 0 { // the source restarts
				if begun {
					lost += value - last
				}
				value, last = 0, 0
			}
			if rnd.IntN(4) == 0 { // a missed scrape
				continue
			}
			r := reading{counters: map[string]counter{"a": {Key: store.Key{Service: "s"}, direction: store.Ingress, value: value}}}
			// An undetectable restart: the counter exceeds its last value.
			if begun && last == 0 && value >= m.Values["a"] {
				lost += m.Values["a"]
			}
			grown, next, err := delta(m, r, at, 100)
			if err != nil {
				t.Fatal(err)
			}
			if b := grown[store.Key{Service: "s"}]; b.Ingress < 0 || b.Ingress > value {
				t.Fatalf("got %d where the counter is at %d", b.Ingress, value)
			} else {
				counted += b.Ingress
			}
			m, last, begun = next, value, true
		}
		if pending := value - last; counted+lost+pending != total {
			t.Fatalf("counted %d, lost %d, to come %d: that is not %d", counted, lost, pending, total)
		}
	}
}

func TestCountersForgetNothing(t *testing.T) {
	m := store.SourceState{Scraped: 1}
	for i := range 200 {
		r := reading{counters: map[string]counter{fmt.Sprint(i): {direction: store.Egress, value: 1}}}
		_, next, err := delta(m, r, int64(i)+2, 100)
		if err != nil {
			t.Fatal(i, err)
		}
		m = next
	}
	_, same, err := delta(m, reading{counters: map[string]counter{"one more": {value: 1}}}, 300, 100)
	if err == nil || len(same.Values) != 200 {
		t.Errorf("got %v and %d values", err, len(same.Values))
	}
}

func FuzzCounters(f *testing.F) {
	f.Add("kong_bandwidth{type=\"egress\",service=\"s\",route=\"r\"} 7\n")
	f.Add("# TYPE traefik_service_requests_bytes_total counter\ntraefik_service_requests_bytes_total{service=\"a\"} 1e3\nprocess_start_time_seconds 1.7e9\n")
	f.Add("# TYPE rgate_bandwidth_bytes_total histogram\nrgate_bandwidth_bytes_total_bucket{le=\"1\"} 1\n")
	f.Fuzz(func(t *testing.T, metrics string) {
		r, err := read(strings.NewReader(metrics), 100)
		if err != nil {
			return
		}
		m := store.SourceState{Scraped: 1}
		grown, next, err := delta(m, r, 2, 100)
		if err != nil {
			return
		}
		for key, b := range grown {
			if b.Ingress < 0 || b.Egress < 0 || b.IngressHeaders < 0 || b.EgressHeaders < 0 || b.IsZero() {
				t.Fatalf("%v: %+v", key, b)
			}
		}
		again, _, _ := delta(next, r, 3, 100)
		if len(again) != 0 {
			t.Fatalf("the same reading counts again: %v", again)
		}
	})
}

func BenchmarkCountersDelta(b *testing.B) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "kong_bandwidth_bytes{service=\"s%d\",route=\"r\",direction=\"egress\",workspace=\"default\",consumer=\"\"} %d\n", i, i*1000)
	}
	m := store.SourceState{Scraped: 1}
	b.ReportAllocs()
	for b.Loop() {
		r, err := read(strings.NewReader(text.String()), 10_000)
		if err != nil {
			b.Fatal(err)
		}
		if _, m, err = delta(m, r, 2, 10_000); err != nil {
			b.Fatal(err)
		}
	}
}
