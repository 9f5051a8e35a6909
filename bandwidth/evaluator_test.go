package bandwidth

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth/mailtest"
	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/policy"
)

func TestQuotasOfConsumers(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		server := mailtest.Start(t)
		g := f.gateway("gw-1")
		g.notify(&Notify{SMTP: mailOptions(server)})
		q, _ := g.quota("web", &Quota{Egress: 1000, Per: perConsumer, AtLimit: limitBlock, Consumers: []QuotaConsumer{{Name: "alice", Egress: 5000, Ingress: 100}, {Name: "carol", Total: 10}}})
		for consumer, n := range map[string]int64{"alice": 1000, "bob": 1000, "": 50_000} {
			g.uses(store.Key{Service: "web", Route: "/", Consumer: consumer}, store.Bytes{Egress: n, Ingress: 60})
		}
		g.uses(store.Key{Service: "other", Route: "/", Consumer: "alice"}, store.Bytes{Egress: 10_000, Ingress: 100})
		g.turn()
		server.MustHave(t, "at 100 %", "[rgate] bob at web has used up its egress for November 2026: 100.0 %")
		if q.whole.Load() != nil || q.ofConsumer("alice") != nil || q.ofConsumer("dave") != nil || q.ofConsumer("bob") == nil {
			t.Errorf("the states are %v", q.each.Load())
		}
		var got []string
		for _, s := range g.report() {
			got = append(got, fmt.Sprintf("%s %s %d/%d %s", s.Consumer, s.Direction, s.Used, s.Allocated, s.State))
		}
		want := []string{"alice egress 1000/5000 ok", "alice ingress 60/100 ok", "bob egress 1000/1000 blocked", "carol egress 0/1000 ok", "carol total 0/10 ok"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestUsageOfQuotas(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		g := f.gateway("gw-1")
		for _, c := range []struct {
			level, name string
			routes      []string
			quota       Quota
		}{
			{"gateway", "", nil, Quota{Egress: 1, Ingress: 1, Total: 1}},
			{"group", "/api", []string{"/api/a", "/api/b"}, Quota{Egress: 1}},
			{"route", "/api/a", nil, Quota{Egress: 1, CountHeaders: true}},
			{"backend", "web", nil, Quota{Ingress: 1}},
			{"backend", "idle", nil, Quota{Ingress: 1}},
			{"backend", "web", nil, Quota{Egress: 1, Period: "day", TimeZone: "Asia/Tokyo"}},
		} {
			spec, err := c.quota.spec(policy.Scope{Gateway: "rgate", Level: c.level, Name: c.name, Routes: c.routes}, "rgate")
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := g.join(spec, nil); err != nil {
				t.Fatal(err)
			}
		}
		f.clock.Advance(-30 * 24 * time.Hour) // the previous month
		g.uses(store.Key{Service: "web", Route: "/api/a"}, store.Bytes{Egress: 1 << 40, Ingress: 1 << 40})
		f.clock.Advance(29 * 24 * time.Hour) // yesterday
		g.uses(store.Key{Service: "web", Route: "/api/a"}, store.Bytes{Egress: 1, Ingress: 10, EgressHeaders: 100, IngressHeaders: 1000})
		f.clock.Advance(24 * time.Hour)
		g.uses(store.Key{Service: "web", Route: "/api/b"}, store.Bytes{Egress: 2, Ingress: 20, EgressHeaders: 200})
		g.uses(store.Key{Service: "web", Route: "/c"}, store.Bytes{Egress: 4, Ingress: 40})
		g.uses(store.Key{Service: "web", Route: "/c", Consumer: "alice"}, store.Bytes{Egress: 1 << 30})
		g.counts(store.Key{Service: "web", Route: "/api/a"}, store.Bytes{Egress: 8, Ingress: 80}) // not flushed yet
		g.mustEvaluate()
		var got []string
		for _, s := range g.report() {
			got = append(got, fmt.Sprintf("%s %s %s %d", s.Level, s.Name, s.Direction, s.Used))
		}
		want := []string{
			"backend idle ingress 0", "backend web egress 14", "backend web ingress 150",
			"gateway rgate egress 15", "gateway rgate ingress 150", "gateway rgate total 165",
			"group /api egress 11", "route /api/a egress 109",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	})
}

// While the database is down, the last evaluation applies until its period ends.
func TestDatabaseIsDown(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		g := f.gateway("gw-1")
		q, _ := g.quota("web", &Quota{Egress: 1000, AtLimit: limitBlock})
		g.sends("web", 1000)
		g.mustEvaluate()
		if err := g.store.DB().Close(); err != nil {
			t.Fatal(err)
		}
		err := g.evaluate(context.Background())
		g.setProblem(err)
		if err == nil || q.whole.Load() == nil {
			t.Errorf("got %v, and the state %v", err, q.whole.Load())
		}
		if d := g.dependency(); d.Up || d.Error == "" {
			t.Errorf("the health is %+v", d)
		}
	})
}

// Two quotas with the same scope, period and name are an error.
func TestTheSameQuotaTwice(t *testing.T) {
	g := newEvaluator("rgate")
	config := new(int)
	spec := specOf(t, "backend", "web", &Quota{Egress: 1})
	if _, _, err := g.join(spec, config); err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.join(spec, config); err == nil || !strings.Contains(err.Error(), "set name on one of the two") {
		t.Errorf("got %v", err)
	}
	for _, other := range []*Quota{{Egress: 1, Name: "b"}, {Egress: 1, Period: "day"}, {Egress: 1, Per: perConsumer}} {
		if _, _, err := g.join(specOf(t, "backend", "web", other), config); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := g.join(spec, new(int)); err != nil {
		t.Errorf("another configuration: %v", err)
	}
}

// Message IDs of two databases differ, even if everything else is equal.
func TestMessagesOfTwoDatabases(t *testing.T) {
	server := mailtest.Start(t)
	for _, name := range []string{"one", "another"} {
		t.Run(name, func(t *testing.T) {
			eachStore(t, func(t *testing.T, f *quotaFleet) {
				g := f.gateway("gw-1")
				g.quota("web", &Quota{Egress: 100_000})
				g.notify(&Notify{SMTP: mailOptions(server)})
				g.sends("web", 80_000)
				g.turn()
			})
		})
	}
	messages := server.Messages()
	ids := make(map[string]bool)
	for _, m := range messages {
		ids[m.Header.Get("Message-Id")] = true
	}
	if len(messages) < 2 || len(ids) != len(messages) {
		t.Errorf("%d messages have the IDs %v", len(messages), ids)
	}
}

// Bytes counted by one gateway take effect on all other gateways within ten seconds.
func TestEvaluationDelay(t *testing.T) {
	if worst := store.DefaultFlushInterval + evaluateInterval; worst > 10*time.Second {
		t.Errorf("it takes %v", worst)
	}
}
