package dashboard

import (
	"fmt"
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/internal/status"
)

const benchServices = 100

// manyRows returns rows of 100 services for the windows of a span.
func manyRows(s span) (rows accountRows) {
	random := newRandom()
	for i := range s.n {
		for n := range benchServices {
			name, route := fmt.Sprintf("service-%02d", n), fmt.Sprintf("/api/v1/service-%02d", n)
			rows.bytes = append(rows.bytes, store.Row{Minute: s.start(i), Gateway: "gw-1", Key: store.Key{Service: name, Route: route},
				Bytes: store.Bytes{Ingress: random.Int64N(1e9), Egress: random.Int64N(1e10)}})
			row := store.RequestRow{Minute: s.start(i), Gateway: "gw-1", Service: name, Route: route, Requests: 20_000, Errors: random.Uint64N(100), Seconds: float64(n) * 100}
			row.Sketch = demoSketch(random, 50, 0.01*float64(n+1))
			rows.requests = append(rows.requests, row)
		}
	}
	return rows
}

// publishMany publishes the state of 100 backends with three containers each.
func publishMany(b *testing.B, gateway string) {
	backends := make([]backend, benchServices)
	for n := range backends {
		backends[n] = backend{Name: fmt.Sprintf("service-%02d", n), Status: "healthy", Total: 3, Healthy: 3, InFlight: int64(n)}
		for i := range 3 {
			backends[n].Instances = append(backends[n].Instances, instance{Address: fmt.Sprintf("172.18.%d.%d:8080", n, i), Container: fmt.Sprintf("shop-service-%02d-%d", n, i), Status: "healthy"})
		}
	}
	b.Cleanup(status.Services.Publish(gateway, func() any { return map[string]any{"services": backends} }))
}

// benchPage returns a dashboard of 100 services with 300 containers, and parameters for
// 30 days.
func benchPage(b *testing.B) (d *Dashboard, params pageParams) {
	publishMany(b, "many")
	params, err := parseParams("range=30d")
	if err != nil {
		b.Fatal(err)
	}
	hours := spanOf(params.timeRange, time.Hour, demoNow, time.UTC)
	d = demoDashboard(b, manyRows(hours).store(b))
	d.Gateway = "many"
	return d, params
}

// BenchmarkPage measures rendering the page with usage from SQLite, which contains a
// row for each service and hour or day: for the first request and for a refresh.
func BenchmarkPage(b *testing.B) {
	d, a := benchPage(b)
	for name, first := range map[string]bool{"first": true, "again": false} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if first {
					d.cache = usageCache{}
				}
				if _, err := d.render(b.Context(), a); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPageDrawing measures rendering the page without reading the usage.
func BenchmarkPageDrawing(b *testing.B) {
	d, a := benchPage(b)
	f := emptyFigures(a, demoNow, time.UTC)
	if err := f.collect(b.Context(), d.account(), a); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		body, err := d.write(a, f, readLive(d.Gateway, d.log, a), "")
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(body)), "bytes")
	}
}
