package dashboard

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	sketchstore "github.com/DataDog/sketches-go/ddsketch/store"
	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/stats"
)

// demoNow is the current time of the demo's page.
var demoNow = time.Date(2026, 11, 24, 14, 32, 40, 0, time.UTC)

// demoService is a service of a fictional shop.
type demoService struct {
	name, route   string
	rate          float64 // requests per second at noon
	ingress, sent float64 // bytes of a request and of a response
	took          float64 // the median duration in seconds
	failing       float64 // the ratio of errors
}

var demoServices = []demoService{
	{"catalog", "/api/catalog", 42, 620, 58_000, 0.018, 0.002},
	{"checkout", "/api/checkout", 6, 9_400, 23_100, 0.140, 0.006},
	{"images", "/images", 55, 0, 64_000, 0.006, 0.001},
	{"payment", "/api/payment", 3.5, 8_900, 4_900, 0.310, 0.006},
	{"recommendations", "/api/recommendations", 5, 2_250, 96_000, 0.190, 0.004},
	{"reports", "/reports", 0.2, 250, 760_000, 0.620, 0.003},
	{"search", "/api/search", 14, 1_300, 89_500, 0.074, 0.004},
	{"uploads", "/api/uploads", 0.8, 99_000, 300, 0.850, 0.009},
	{"users", "/api/users", 11, 2_500, 12_600, 0.022, 0.003},
}

func newRandom() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// demoSketch returns an encoded distribution of n durations with a given median.
func demoSketch(random *rand.Rand, n int, median float64) []byte {
	m, err := mapping.NewCubicallyInterpolatedMapping(0.01)
	if err != nil {
		panic(err)
	}
	sketch := ddsketch.NewDDSketch(m, sketchstore.NewCollapsingLowestDenseStore(2048), sketchstore.NewSparseStore())
	for range n {
		_ = sketch.Add(median * math.Exp(random.NormFloat64()*0.6)) // cannot fail: the value is positive
	}
	var encoded []byte
	sketch.Encode(&encoded, false)
	return encoded
}

// demoRows returns the rows that a gateway records per minute. Minutes in which the
// gateway was not running have no rows.
func demoRows(from, to time.Time, services []demoService) (rows accountRows) {
	random := newRandom()
	for at := from; at.Before(to); at = at.Add(time.Minute) {
		if at.Hour() == 11 && at.Minute() >= 10 && at.Minute() < 25 {
			continue
		}
		hours := float64(at.Unix()%86400) / 3600
		day := 0.55 + 0.45*math.Sin((hours-8)/24*2*math.Pi)
		incident := at.Hour() == 13 && at.Minute() >= 5 && at.Minute() < 30
		part := min(to.Sub(at), time.Minute).Minutes()
		for _, s := range services {
			n := s.rate * 60 * part * day * (1 + random.NormFloat64()*0.09)
			failing, took := s.failing, s.took*(0.9+0.3*day+random.Float64()*0.1)
			if incident && s.name == "checkout" {
				failing, took = 0.22, took*6
			}
			count := uint64(max(n, 0))
			if count == 0 {
				continue
			}
			errors := uint64(float64(count)*failing + random.Float64())
			rows.bytes = append(rows.bytes, store.Row{
				Minute: at, Gateway: "gw-1", Key: store.Key{Service: s.name, Route: s.route},
				Bytes: store.Bytes{Ingress: int64(n * s.ingress), Egress: int64(n * s.sent * (1 + random.NormFloat64()*0.05))},
			})
			rows.requests = append(rows.requests, store.RequestRow{
				Minute: at, Gateway: "gw-1", Service: s.name, Route: s.route, Requests: count, Errors: errors,
				Seconds: float64(count) * took * 1.2, Sketch: demoSketch(random, max(int(count)/20, 3), took),
			})
		}
	}
	return rows
}

// publishDemo publishes the state of the demo's gateway and policies.
func publishDemo(t testing.TB, gateway string) {
	healthy := func(name string, n int) map[string]any {
		var instances []map[string]any
		for i := range n {
			instances = append(instances, map[string]any{"address": fmt.Sprintf("172.18.0.%d:8080", 3+len(name)+i), "container": fmt.Sprintf("shop-%s-%d", name, i+1), "status": "healthy"})
		}
		return map[string]any{"name": name, "status": "healthy", "total_instances": n, "healthy_instances": n, "in_flight": len(name) * n / 3, "instances": instances}
	}
	checkout := healthy("checkout", 3)
	checkout["status"], checkout["healthy_instances"] = "degraded", 2
	checkout["instances"].([]map[string]any)[2] = map[string]any{"container": "shop-checkout-3", "status": "unhealthy", "reason": `label rgate.port="http" is not a port: use a number such as 8080`}
	legacy := map[string]any{"name": "legacy", "status": "unhealthy", "total_instances": 1, "healthy_instances": 0, "in_flight": 0,
		"instances": []map[string]any{{"address": "10.0.4.20:9001", "status": "unhealthy", "in_flight": 0, "reason": "health checks fail"}}}
	payment := healthy("payment", 2)
	payment["circuit_breaker"] = []map[string]any{{"state": "half_open"}}
	ends := []func(){
		status.Services.Publish(gateway, func() any {
			return map[string]any{"services": []any{healthy("catalog", 4), checkout, healthy("images", 2), legacy, payment, healthy("recommendations", 1), healthy("reports", 1), healthy("search", 2), healthy("uploads", 1), healthy("users", 2)}}
		}),
		status.Dependencies.Publish(status.Process{}, func() status.Dependency { return status.Dependency{Name: "redis 10.0.0.7:6379", Up: true} }),
		status.Dependencies.Publish(status.Process{}, func() status.Dependency {
			return status.Dependency{Name: "source kong-eu", Error: "reading http://10.0.4.8:8001/metrics: connection refused"}
		}),
	}
	ends = append(ends, status.Quotas.Publish(gateway, func() any {
		return []quota{
			demoQuota("images", "egress", 2_000_000_000_000, 1_460_000_000_000, "notify", "ok"),
			demoQuota("uploads", "ingress", 300_000_000_000, 256_000_000_000, "throttle", "ok"),
			demoQuota("payment", "egress", 1_000_000_000, 1_010_000_000, "block", "blocked"),
		}
	}))
	t.Cleanup(func() {
		for _, end := range ends {
			end()
		}
	})
}

func demoQuota(service, direction string, allocated, used int64, atLimit, state string) quota {
	q := quota{Name: service, Service: service, Direction: direction, Allocated: allocated, Used: used, AtLimit: atLimit, State: state}
	start, end := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	q.Period.End = end
	elapsed := float64(demoNow.Sub(start)) / float64(end.Sub(start))
	forecast := int64(float64(used) / elapsed)
	q.Forecast = &forecast
	if used < allocated && forecast >= allocated {
		full := start.Add(time.Duration(float64(demoNow.Sub(start)) * float64(allocated) / float64(used)))
		q.FullAt = &full
	}
	for _, percent := range []float64{80, 90, 100} {
		t := threshold{Percent: percent}
		if float64(used) >= float64(allocated)*percent/100 {
			t.CrossedAt = &start
		}
		q.Thresholds = append(q.Thresholds, t)
	}
	return q
}

// demoErrors is a request log with the errors of the demo's gateway.
type demoErrors []stats.LogEntry

func (l demoErrors) Report(q stats.LogQuery) (report stats.LogReport) {
	for i, s := range demoServices {
		report.Responses = append(report.Responses, stats.LogEntry{Time: demoNow.Add(-time.Duration(i*i) * 700 * time.Millisecond), Service: s.name, Route: s.route, Status: 200})
	}
	for _, e := range l {
		if q.Matches(&e) {
			report.Errors, report.Responses = append(report.Errors, e), append(report.Responses, e)
		}
	}
	return report
}

func demoLog(now time.Time) demoErrors {
	entry := func(ago time.Duration, service, container, method, url string, status int, took time.Duration, cause string) stats.LogEntry {
		return stats.LogEntry{Time: now.Add(-ago), Route: "/api/" + service, Service: service, Container: container, Method: method, URL: url, Status: status, Took: took, Error: cause}
	}
	return demoErrors{
		entry(4*time.Second, "legacy", "", "GET", "/api/legacy/orders?page=2", 503, 1200*time.Microsecond, "no upstreams available"),
		entry(21*time.Second, "checkout", "shop-checkout-1", "POST", "/api/checkout/carts/8841/pay", 504, 30*time.Second, "no response within 30s"),
		entry(48*time.Second, "users", "shop-users-2", "GET", "/api/users/me?token=REDACTED", 401, 3*time.Millisecond, ""),
		entry(3*time.Minute, "payment", "", "POST", "/api/payment/charges", 429, 200*time.Microsecond, ""),
		entry(5*time.Minute, "catalog", "shop-catalog-3", "GET", "/api/catalog/items/77120", 404, 11*time.Millisecond, ""),
		entry(9*time.Minute, "search", "shop-search-1", "GET", "/api/search?q=%E2%82%AC+lamp&sort=price", 500, 412*time.Millisecond, ""),
		entry(64*time.Minute, "checkout", "shop-checkout-2", "POST", "/api/checkout/carts/8790/pay", 502, 2100*time.Millisecond, "connection reset by peer"),
	}
}

// demoDashboard returns the dashboard of a fictional shop.
func demoDashboard(t testing.TB, from account) *Dashboard {
	publishDemo(t, "shop")
	d := &Dashboard{
		Gateway: "shop", zone: time.UTC, Refresh: defaultRefresh, log: demoLog(demoNow),
		clock: func() time.Time { return demoNow }, account: func() account { return from },
	}
	d.Path = defaultPath
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	if err := d.Start(ctx, "dashboard"); err != nil {
		t.Fatal(err)
	}
	return d
}
