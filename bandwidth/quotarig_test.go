package bandwidth

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/rgate/rgate/bandwidth/mailtest"
	"github.com/rgate/rgate/bandwidth/notify"
	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/bandwidth/storetest"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

// quotaFleet is a database shared by several gateways, and their clock.
type quotaFleet struct {
	t     *testing.T
	clock *storetest.Clock
	url   string
}

// eachStore runs a test with each database engine.
func eachStore(t *testing.T, test func(*testing.T, *quotaFleet)) {
	storetest.OnBothEngines(t, func(t *testing.T, url string) {
		test(t, &quotaFleet{t, storetest.ClockAt(t, "2026-11-20T12:00:30Z"), url})
	})
}

// quotaGateway is a gateway with quotas. Tests trigger its evaluations and deliveries.
type quotaGateway struct {
	*quotaEvaluator
	t     *testing.T
	store *store.Store
	rec   *storetest.Recorder
}

// gateway returns a new gateway on the fleet's database.
func (f *quotaFleet) gateway(node string) *quotaGateway {
	f.t.Helper()
	g := &quotaGateway{t: f.t, rec: new(storetest.Recorder)}
	g.store = newQuotaStore(f.t, f.url, node, g.rec, f.clock)
	g.quotaEvaluator = newEvaluator("rgate")
	g.now, g.usageStore = f.clock.Now, func() *store.Store { return g.store }
	f.t.Cleanup(func() { g.attach(nil) })
	return g
}

func specOf(t testing.TB, level, name string, q *Quota) *quotaSpec {
	t.Helper()
	if err := q.Check(); err != nil {
		t.Fatal(err)
	}
	spec, err := q.spec(policy.Scope{Gateway: "rgate", Level: level, Name: name}, "rgate")
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// quota adds a quota to a backend.
func (g *quotaGateway) quota(backend string, q *Quota) (shared *sharedQuota, leave func()) {
	g.t.Helper()
	shared, leave, err := g.join(specOf(g.t, "backend", backend, q), nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return shared, leave
}

// notify adds channels to the gateway.
func (g *quotaGateway) notify(p *Notify) (leave func()) {
	g.t.Helper()
	if err := p.Check(); err != nil {
		g.t.Fatal(err)
	}
	channels, err := notify.Open(p.SMTP, p.Webhook, p.Link)
	if err != nil {
		g.t.Fatal(err)
	}
	return g.notifier.Use(channels)
}

// uses counts bytes and flushes them to the database.
func (g *quotaGateway) uses(key store.Key, n store.Bytes) {
	g.t.Helper()
	g.counts(key, n)
	if err := g.store.Flush(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
}

// counts counts bytes that stay in memory.
func (g *quotaGateway) counts(key store.Key, n store.Bytes) {
	g.rec.Add(intervalOf(key, n))
	g.store.Collect()
}

// intervalOf returns a recorder interval with the given bytes.
func intervalOf(key store.Key, n store.Bytes) stats.Interval {
	return stats.Interval{Route: key.Route, Backend: key.Service, Consumer: key.Consumer, Traffic: stats.Traffic{
		IngressBody: uint64(n.Ingress), EgressBody: uint64(n.Egress),
		IngressHeader: uint64(n.IngressHeaders), EgressHeader: uint64(n.EgressHeaders),
	}}
}

// newQuotaStore returns a store that collects from rec.
func newQuotaStore(t testing.TB, url, node string, rec *storetest.Recorder, clock *storetest.Clock) *store.Store {
	t.Helper()
	at, err := store.ParseAddress(url)
	if err != nil {
		t.Fatal(err)
	}
	s := store.New("rgate", node, at, rec, clock.Now, zap.NewNop())
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (g *quotaGateway) sends(backend string, n int64) {
	g.t.Helper()
	g.uses(store.Key{Service: backend, Route: "/"}, store.Bytes{Egress: n})
}

// turn evaluates the quotas and attempts the due deliveries.
func (g *quotaGateway) turn() {
	g.t.Helper()
	g.mustEvaluate()
	if _, err := g.notifier.DeliverDue(g.t.Context(), g.store.DB()); err != nil {
		g.t.Fatal(err)
	}
	g.mustEvaluate()
}

func (g *quotaGateway) mustEvaluate() {
	g.t.Helper()
	if err := g.evaluate(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
}

// thresholds returns the state of each threshold in the report, such as `80 sent, 90,
// 100`.
func (g *quotaGateway) thresholds(name, direction, consumer string) string {
	for _, s := range g.report() {
		if s.Name == name && s.Direction == direction && s.Consumer == consumer {
			var all []string
			for _, threshold := range s.Thresholds {
				text := fmt.Sprint(threshold.Percent)
				for _, d := range threshold.Deliveries {
					text += " " + d.State
				}
				if len(threshold.Deliveries) == 0 && threshold.CrossedAt != nil {
					text += " no message"
				}
				all = append(all, text)
			}
			return strings.Join(all, ", ")
		}
	}
	return "nothing"
}

func (g *quotaGateway) mustHaveThresholds(when, want string) {
	g.t.Helper()
	if got := g.thresholds("web", "egress", ""); got != want {
		g.t.Errorf("%s: the thresholds are %q, want %q", when, got, want)
	}
}

const (
	at80  = "[rgate] web has used 80.0 % of its egress for November 2026"
	at105 = "[rgate] web has used up its egress for November 2026: 105.0 %"
)

// mailOptions returns the options for a test server.
func mailOptions(s *mailtest.Server) *notify.SMTP {
	return &notify.SMTP{
		Address: s.Address, CAFile: s.CAFile, Username: mailtest.User, Password: mailtest.Password,
		From: "Gateway <rgate@example.com>", To: []string{"ops@example.com"},
	}
}
