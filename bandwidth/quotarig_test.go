package bandwidth

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rgate/rgate/bandwidth/mailtest"
	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/bandwidth/storetest"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

// quotaFleet is a database and what its gateways have in common.
type quotaFleet struct {
	t     *testing.T
	clock *storetest.Clock
	store string
}

// eachStore runs a test on each engine.
func eachStore(t *testing.T, test func(*testing.T, *quotaFleet)) {
	storetest.OnBothEngines(t, func(t *testing.T, store string) {
		test(t, &quotaFleet{t, storetest.ClockAt(t, "2026-11-20T12:00:30Z"), store})
	})
}

// quotaGateway is a gateway that does something only when it is told to.
type quotaGateway struct {
	*quotaEvaluator
	t      *testing.T
	l      *store.Store
	rec    *storetest.Recorder
	logged *observer.ObservedLogs
}

// gateway starts a gateway on the fleet's database, or starts one again.
func (f *quotaFleet) gateway(node string) *quotaGateway {
	f.t.Helper()
	core, logged := observer.New(zap.DebugLevel)
	g := &quotaGateway{t: f.t, logged: logged, rec: new(storetest.Recorder)}
	g.l = newQuotaStore(f.t, f.store, node, g.rec, f.clock)
	g.quotaEvaluator = newEvaluator("rgate")
	g.quotaEvaluator.now, g.quotaEvaluator.ledger = f.clock.Now, func() *store.Store { return g.l }
	g.quotaEvaluator.logger.Store(zap.New(core))
	f.t.Cleanup(func() { g.attach(nil) })
	return g
}

func quotaTerms(t testing.TB, level, name string, q *Quota) *quotaSpec {
	t.Helper()
	if err := q.Check(); err != nil {
		t.Fatal(err)
	}
	terms, err := q.spec(policy.Scope{Gateway: "rgate", Level: level, Name: name}, "rgate")
	if err != nil {
		t.Fatal(err)
	}
	return terms
}

// quota puts a quota on a backend.
func (g *quotaGateway) quota(backend string, q *Quota) (acc *account, leave func()) {
	g.t.Helper()
	acc, leave, err := g.join(quotaTerms(g.t, "backend", backend, q), nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return acc, leave
}

// notify has messages sent.
func (g *quotaGateway) notify(p *Notify) (leave func()) {
	g.t.Helper()
	if err := p.Check(); err != nil {
		g.t.Fatal(err)
	}
	channels, err := p.channels()
	if err != nil {
		g.t.Fatal(err)
	}
	return g.notifier.join(channels)
}

// uses has the gateway count bytes, and write them.
func (g *quotaGateway) uses(key store.Key, n store.Bytes) {
	g.t.Helper()
	g.counts(key, n)
	if err := g.l.Flush(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
}

// counts has the gateway count bytes, which stay in memory.
func (g *quotaGateway) counts(key store.Key, n store.Bytes) {
	g.rec.Add(intervalOf(key, n))
	g.l.Collect()
}

// intervalOf is what a recorder drains for the bytes.
func intervalOf(key store.Key, n store.Bytes) stats.Interval {
	return stats.Interval{Route: key.Route, Backend: key.Service, Consumer: key.Consumer, Traffic: stats.Traffic{
		IngressBody: uint64(n.Ingress), EgressBody: uint64(n.Egress),
		IngressHeader: uint64(n.IngressHeaders), EgressHeader: uint64(n.EgressHeaders),
	}}
}

// newQuotaStore returns a store that collects from rec when the test says so.
func newQuotaStore(t testing.TB, url, node string, rec *storetest.Recorder, clock *storetest.Clock) *store.Store {
	t.Helper()
	at, err := store.ParseAddress(url)
	if err != nil {
		t.Fatal(err)
	}
	l := store.New("rgate", node, at, rec, clock.Now, zap.NewNop())
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func (g *quotaGateway) sends(backend string, n int64) {
	g.t.Helper()
	g.uses(store.Key{Service: backend, Route: "/"}, store.Bytes{Egress: n})
}

// judge has the quotas judged, and what is due delivered.
func (g *quotaGateway) turn() {
	g.t.Helper()
	g.audits()
	if _, err := g.notifier.deliverDue(g.t.Context(), g.l.DB()); err != nil {
		g.t.Fatal(err)
	}
	g.audits()
}

func (g *quotaGateway) audits() {
	g.t.Helper()
	if err := g.evaluate(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
}

// told is the state of each threshold in the report, such as `80 sent, 90, 100`.
func (g *quotaGateway) told(name, direction, consumer string) string {
	for _, s := range g.report() {
		if s.Name == name && s.Direction == direction && s.Consumer == consumer {
			var all []string
			for _, threshold := range s.Thresholds {
				text := fmt.Sprint(threshold.Percent)
				for _, d := range threshold.Deliveries {
					text += " " + d.State
				}
				if len(threshold.Deliveries) == 0 && threshold.CrossedAt != nil {
					text += " untold"
				}
				all = append(all, text)
			}
			return strings.Join(all, ", ")
		}
	}
	return "nothing"
}

func (g *quotaGateway) mustBeTold(when, want string) {
	g.t.Helper()
	if got := g.told("web", "egress", ""); got != want {
		g.t.Errorf("%s: the thresholds are %q, want %q", when, got, want)
	}
}

func mustHaveMail(t testing.TB, when string, s *mailtest.Server, subjects ...string) {
	t.Helper()
	var got []string
	for _, m := range s.Messages() {
		got = append(got, m.Subject)
	}
	if !slices.Equal(got, subjects) {
		t.Fatalf("%s: the mail is %q, want %q", when, got, subjects)
	}
}

const (
	at80  = "[rgate] web has used 80.0 % of its egress for November 2026"
	at105 = "[rgate] web has used up its egress for November 2026: 105.0 %"
)
