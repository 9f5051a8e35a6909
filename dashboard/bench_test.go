package dashboard

import (
	"fmt"
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth"
	"github.com/rgate/rgate/policy"
)

const benchServices = 100

// manyRows are what a hundred services did in windows of some length.
func manyRows(s span) *ledgerOfRows {
	random := newRandom()
	l := new(ledgerOfRows)
	for i := range s.n {
		for n := range benchServices {
			name, route := fmt.Sprintf("service-%02d", n), fmt.Sprintf("/api/v1/service-%02d", n)
			l.rows = append(l.rows, bandwidth.Row{Minute: s.start(i), Gateway: "gw-1", Key: bandwidth.Key{Service: name, Route: route},
				Bytes: bandwidth.Bytes{Ingress: random.Int64N(1e9), Egress: random.Int64N(1e10)}})
			row := bandwidth.RequestRow{Minute: s.start(i), Gateway: "gw-1", Service: name, Route: route, Requests: 20_000, Errors: random.Uint64N(100), Seconds: float64(n) * 100}
			row.Sketch = demoSketch(random, 50, 0.01*float64(n+1))
			l.requests = append(l.requests, row)
		}
	}
	return l
}

// publishMany publishes a hundred backends of three containers.
func publishMany(b *testing.B, gateway string) {
	backends := make([]backend, benchServices)
	for n := range backends {
		backends[n] = backend{Name: fmt.Sprintf("service-%02d", n), Status: "healthy", Total: 3, Healthy: 3, InFlight: int64(n)}
		for i := range 3 {
			backends[n].Instances = append(backends[n].Instances, instance{Address: fmt.Sprintf("172.18.%d.%d:8080", n, i), Container: fmt.Sprintf("shop-service-%02d-%d", n, i), Status: "healthy"})
		}
	}
	b.Cleanup(policy.Publish(policy.Services, policy.Place{Gateway: gateway}, func() any { return map[string]any{"services": backends} }))
}

// BenchmarkPage is the page of 100 services with 300 containers over 30 days, once its
// figures have been read.
func BenchmarkPage(b *testing.B) {
	publishMany(b, "many")
	d := demoDashboard(b, nil)
	d.Gateway = "many"
	a, err := parseAsk("range=30d")
	if err != nil {
		b.Fatal(err)
	}
	f := nothing(a, demoNow, time.UTC)
	if err := f.collect(b.Context(), manyRows(f.span), a); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		body, err := d.write(a, f, look(d.Gateway, d.log, a), "")
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(body)), "bytes")
	}
}
