package bandwidth

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rgate/rgate/bandwidth/mailtest"
	"github.com/rgate/rgate/policy"
)

// quotaFleet is a database and what its gateways have in common.
type quotaFleet struct {
	t     *testing.T
	clock *testClock
	store string
}

// eachStore runs a test on each engine.
func eachStore(t *testing.T, test func(*testing.T, *quotaFleet)) {
	for name, open := range map[string]func(*testing.T) string{
		"sqlite": func(t *testing.T) string { return "sqlite://" + filepath.Join(t.TempDir(), "bandwidth.db") },
	} {
		t.Run(name, func(t *testing.T) {
			test(t, &quotaFleet{t, newTestClock(t, "2026-11-20T12:00:30Z"), open(t)})
		})
	}
}

// quotaGateway is a gateway that does something only when it is told to.
type quotaGateway struct {
	*auditor
	t      *testing.T
	l      *Ledger
	logged *observer.ObservedLogs
}

// gateway starts a gateway on the fleet's database, or starts one again.
func (f *quotaFleet) gateway(node string) *quotaGateway {
	f.t.Helper()
	core, logged := observer.New(zap.DebugLevel)
	g := &quotaGateway{t: f.t, l: newTestLedgerOn(f.t, f.store, node, f.clock), logged: logged}
	g.auditor = newAuditor("rgate")
	g.auditor.now, g.auditor.ledger = f.clock.Now, func() *Ledger { return g.l }
	g.auditor.logger.Store(zap.New(core))
	f.t.Cleanup(func() { g.attach(nil) })
	return g
}

func quotaTerms(t testing.TB, level, name string, q *Quota) *terms {
	t.Helper()
	if err := q.Check(); err != nil {
		t.Fatal(err)
	}
	terms, err := q.terms(policy.Standpoint{Gateway: "rgate", Level: level, Name: name}, "rgate")
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
	return g.courier.join(channels)
}

// uses has the gateway count bytes, and write them.
func (g *quotaGateway) uses(key Key, n Bytes) {
	g.t.Helper()
	g.l.Add(g.l.node, map[Key]Bytes{key: n})
	g.l.flushed(g.t)
}

func (g *quotaGateway) sends(backend string, n int64) {
	g.t.Helper()
	g.uses(Key{Service: backend, Route: "/"}, Bytes{Egress: n})
}

// judge has the quotas judged, and what is due delivered.
func (g *quotaGateway) turn() {
	g.t.Helper()
	g.audits()
	if _, err := g.courier.deliverDue(g.t.Context(), g.l.DB()); err != nil {
		g.t.Fatal(err)
	}
	g.audits()
}

func (g *quotaGateway) audits() {
	g.t.Helper()
	if err := g.audit(g.t.Context()); err != nil {
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

func TestThresholdsAreToldOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		server := mailtest.Start(t)
		notify := &Notify{SMTP: mailOptions(server)}
		quota := &Quota{Egress: 100_000}
		g := f.gateway("gw-1")
		g.quota("web", quota)
		g.notify(notify)

		g.sends("web", 79_900)
		g.sends("other", 50_000)
		g.turn()
		mustHaveMail(t, "at 79.9 %", server)
		g.mustBeTold("at 79.9 %", "80, 90, 100")

		g.sends("web", 100)
		g.turn()
		g.turn()
		mustHaveMail(t, "at 80.0 %", server, at80)
		g.mustBeTold("at 80.0 %", "80 sent, 90, 100")

		g.sends("web", 25_000)
		g.turn()
		g.turn()
		mustHaveMail(t, "at 105 %", server, at80, at105)
		g.mustBeTold("at 105 %", "80 sent, 90 sent, 100 sent")
		if last := server.Messages()[1]; !strings.Contains(last.Plain, "reached: 80 %, 90 %, 100 %") {
			t.Errorf("the mail says %s", last.Plain)
		}

		again := f.gateway("gw-1")
		again.quota("web", quota)
		again.notify(notify)
		again.turn()
		again.sends("web", 1)
		again.turn()
		mustHaveMail(t, "after a restart", server, at80, at105)
		again.mustBeTold("after a restart", "80 sent, 90 sent, 100 sent")

		f.clock.Advance(11 * 24 * time.Hour) // December
		again.turn()
		mustHaveMail(t, "in the next period", server, at80, at105)
		again.mustBeTold("in the next period", "80, 90, 100")
		again.sends("web", 80_000)
		again.turn()
		mustHaveMail(t, "in the next period", server, at80, at105, "[rgate] web has used 80.0 % of its egress for December 2026")
	})
}

// A jump over all thresholds is one message.
func TestAJumpIsOneMessage(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		server := mailtest.Start(t)
		g := f.gateway("gw-1")
		g.quota("web", &Quota{Egress: 100_000})
		g.notify(&Notify{SMTP: mailOptions(server)})
		g.sends("web", 105_000)
		g.turn()
		g.turn()
		mustHaveMail(t, "at 105 %", server, at105)
		g.mustBeTold("at 105 %", "80 sent, 90 sent, 100 sent")
	})
}

// Two gateways share a database, find the same out at the same time, and one tells it.
func TestOneOfSeveralGatewaysTells(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		server := mailtest.Start(t)
		var gateways []*quotaGateway
		for _, node := range []string{"gw-1", "gw-2", "gw-3"} {
			g := f.gateway(node)
			g.quota("web", &Quota{Egress: 100_000, AtLimit: limitBlock})
			g.notify(&Notify{SMTP: mailOptions(server)})
			g.sends("web", 35_000)
			gateways = append(gateways, g)
		}
		for range 2 {
			var all sync.WaitGroup
			for _, g := range gateways {
				all.Go(g.turn)
			}
			all.Wait()
		}
		mustHaveMail(t, "at 105 %", server, at105)
		for _, g := range gateways {
			g.mustBeTold(g.l.node, "80 sent, 90 sent, 100 sent")
			if v := g.accounts[quotaTerms(t, "backend", "web", &Quota{Egress: 1}).key].whole.Load(); v == nil || v.used != 105_000 {
				t.Errorf("%s: the verdict is %+v", g.l.node, v)
			}
		}
	})
}

func TestAMessageIsTriedAgain(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		server := mailtest.Start(t)
		server.Reply("DATA", 451, 2)
		g := f.gateway("gw-1")
		g.quota("web", &Quota{Egress: 100_000})
		g.notify(&Notify{SMTP: mailOptions(server)})
		g.sends("web", 80_000)
		g.turn()
		g.turn() // too early
		g.mustBeTold("after 451", "80 pending, 90, 100")
		if server.Attempts() != 1 {
			t.Errorf("after 451 once: %d attempts", server.Attempts())
		}
		f.clock.Advance(3 * time.Second)
		g.turn()
		mustHaveMail(t, "after 451 twice", server)

		again := f.gateway("gw-1") // the messages outlive it
		again.quota("web", &Quota{Egress: 100_000})
		again.notify(&Notify{SMTP: mailOptions(server)})
		again.turn() // too early, too
		mustHaveMail(t, "after a restart", server)
		f.clock.Advance(5 * time.Second)
		again.turn()
		mustHaveMail(t, "after 451 twice and 250", server, at80)
		again.mustBeTold("after 250", "80 sent, 90, 100")
		f.clock.Advance(time.Hour)
		again.turn()
		if n := server.Attempts(); n != 3 {
			t.Errorf("%d attempts, want 3", n)
		}
	})
}

// While the server of mail is away, everything else goes on.
func TestServerOfMailIsAway(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		server := mailtest.Start(t)
		server.Stop()
		g := f.gateway("gw-1")
		acc, _ := g.quota("web", &Quota{Egress: 100_000, AtLimit: limitBlock})
		g.notify(&Notify{SMTP: mailOptions(server)})
		g.sends("web", 100_000)
		const attempts = 60
		for range attempts {
			g.turn()
			f.clock.Advance(lastRetry)
		}
		if acc.whole.Load() == nil {
			t.Error("it is not blocked")
		}
		g.mustBeTold("without a server", "80 pending, 90 pending, 100 pending")
		if up := g.courier.dependency(g.courier.channels(), channelMail); up.Up || !strings.Contains(up.Error, "connection refused") || up.Name != "mail "+server.Address {
			t.Errorf("the health is %+v", up)
		}
		server.Restart()
		g.turn()
		mustHaveMail(t, "with the server back", server, "[rgate] web has used up its egress for November 2026: 100.0 %")
		if up := g.courier.dependency(g.courier.channels(), channelMail); !up.Up {
			t.Errorf("the health is %+v", up)
		}
		if id := server.Messages()[0].Header.Get("Message-Id"); !strings.HasPrefix(id, "<rgate.") || !strings.HasSuffix(id, "@example.com>") {
			t.Errorf("the message is called %s", id)
		}
	})
}

// What cannot be delivered is not tried again, until the settings change.
func TestPermanentFailures(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		server := mailtest.Start(t)
		g := f.gateway("gw-1")
		g.quota("web", &Quota{Egress: 100_000})
		wrong := mailOptions(server)
		wrong.Password = "wrong"
		leave := g.notify(&Notify{SMTP: wrong})
		g.sends("web", 80_000)
		for range 5 {
			g.turn()
			f.clock.Advance(time.Hour)
		}
		g.mustBeTold("with a wrong password", "80 failed, 90, 100")
		if n := server.Attempts(); n != 1 {
			t.Errorf("%d attempts, want 1", n)
		}
		if up := g.courier.dependency(g.courier.channels(), channelMail); up.Up || !strings.Contains(up.Error, "535") {
			t.Errorf("the health is %+v", up)
		}
		if n := g.logged.FilterMessage("message about a quota cannot be delivered").Len(); n != 1 {
			t.Errorf("the log says so %d times", n)
		}

		g.notify(&Notify{SMTP: mailOptions(server)})
		leave()
		g.turn()
		mustHaveMail(t, "with the right one", server, at80)
		g.mustBeTold("with the right one", "80 sent, 90, 100")
		for _, entry := range g.logged.All() {
			if text := fmt.Sprint(entry.Message, entry.ContextMap()); strings.Contains(text, "wrong password") || strings.Contains(text, mailtest.Password) {
				t.Errorf("the log has the password: %s", text)
			}
		}
	})
}

// A mail and a webhook are delivered each by itself.
func TestChannelsAreSeparate(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		server := mailtest.Start(t)
		server.Stop()
		hook := startQuotaHook(t)
		hook.answer(503, 500, 200)
		g := f.gateway("gw-1")
		g.quota("web", &Quota{Egress: 100_000})
		g.notify(&Notify{SMTP: mailOptions(server), Webhook: &Webhook{URL: hook.url()}, Link: "https://gw.example.com/"})
		g.sends("web", 105_000)
		g.turn()
		g.mustBeTold("after 503", "80 pending pending, 90 pending pending, 100 pending pending")
		for range 4 {
			f.clock.Advance(20 * time.Second)
			g.turn()
		}
		g.mustBeTold("after 200", "80 pending sent, 90 pending sent, 100 pending sent")
		bodies := hook.bodies()
		if len(bodies) != 3 || bodies[0] != bodies[2] || !strings.HasPrefix(bodies[2], `{"text":"web has used up its egress for November 2026: 105.0 %.`) {
			t.Errorf("the webhook got %q", bodies)
		}
		server.Restart()
		f.clock.Advance(lastRetry)
		g.turn()
		mustHaveMail(t, "with the server back", server, at105)
		if n := len(hook.bodies()); n != 3 {
			t.Errorf("the webhook got %d messages", n)
		}
	})
}

// What has been told is not told again because an allocation is another one now.
func TestARaisedQuotaIsNotToldAgain(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		server := mailtest.Start(t)
		g := f.gateway("gw-1")
		g.notify(&Notify{SMTP: mailOptions(server)})
		_, leave := g.quota("web", &Quota{Egress: 100_000})
		g.sends("web", 95_000)
		g.turn()
		const at95 = "[rgate] web has used 95.0 % of its egress for November 2026"
		mustHaveMail(t, "at 95 %", server, at95)

		_, leave2 := g.quota("web", &Quota{Egress: 200_000, Thresholds: []int{40, 80, 90, 100}})
		leave()
		g.turn()
		g.sends("web", 85_000) // 90 % of the new one
		g.turn()
		mustHaveMail(t, "raised", server, at95)
		g.mustBeTold("raised", "40 untold, 80 sent, 90 sent, 100")
		g.sends("web", 20_000)
		g.turn()
		mustHaveMail(t, "at 100 %", server, at95, "[rgate] web has used up its egress for November 2026: 100.0 %")

		// An older configuration that is gone at last changes nothing.
		leave2()
		if len(g.accounts) != 0 {
			t.Errorf("there are %d accounts", len(g.accounts))
		}
	})
}

// A gateway dies with a message of its own in hand, and another one delivers it.
func TestALeaseEnds(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		server := mailtest.Start(t)
		notify := &Notify{SMTP: mailOptions(server)}
		first, second := f.gateway("gw-1"), f.gateway("gw-2")
		for _, g := range []*quotaGateway{first, second} {
			g.quota("web", &Quota{Egress: 100_000})
			g.notify(notify)
		}
		first.sends("web", 80_000)
		first.audits()
		letters, err := pendingLetters(t.Context(), first.l.DB(), 10)
		if err != nil || len(letters) != 1 {
			t.Fatalf("got %v, %v", letters, err)
		}
		now := f.clock.Now()
		if ours, err := letters[0].claim(t.Context(), first.l.DB(), "first", now, now.Add(time.Minute)); err != nil || !ours {
			t.Fatalf("got %v, %v", ours, err)
		}
		if ours, err := letters[0].claim(t.Context(), second.l.DB(), "second", now, now.Add(time.Minute)); err != nil || ours {
			t.Fatalf("two have it: %v", err)
		}
		second.turn()
		mustHaveMail(t, "while it is the other's", server)
		f.clock.Advance(time.Minute)
		second.turn()
		mustHaveMail(t, "when it is not any more", server, at80)
		// Nobody hears what the first has to say about it now.
		if err := letters[0].settle(t.Context(), first.l.DB(), "first", deliveryPending, "", f.clock.Now(), f.clock.Now()); err != nil {
			t.Fatal(err)
		}
		second.turn()
		mustHaveMail(t, "in the end", server, at80)
	})
}

func TestQuotasOfConsumers(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		server := mailtest.Start(t)
		g := f.gateway("gw-1")
		g.notify(&Notify{SMTP: mailOptions(server)})
		acc, _ := g.quota("web", &Quota{Egress: 1000, Per: perConsumer, AtLimit: limitBlock, Consumers: []QuotaConsumer{{Name: "alice", Egress: 5000, Ingress: 100}, {Name: "carol", Total: 10}}})
		for consumer, n := range map[string]int64{"alice": 1000, "bob": 1000, "": 50_000} {
			g.uses(Key{Service: "web", Route: "/", Consumer: consumer}, Bytes{Egress: n, Ingress: 60})
		}
		g.uses(Key{Service: "other", Route: "/", Consumer: "alice"}, Bytes{Egress: 10_000, Ingress: 100})
		g.turn()
		mustHaveMail(t, "at 100 %", server, "[rgate] bob at web has used up its egress for November 2026: 100.0 %")
		if acc.whole.Load() != nil || acc.verdictOn("alice") != nil || acc.verdictOn("dave") != nil || acc.verdictOn("bob") == nil {
			t.Errorf("the verdicts are %v", acc.each.Load())
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

func TestWhatCounts(t *testing.T) {
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
			terms, err := c.quota.terms(policy.Standpoint{Gateway: "rgate", Level: c.level, Name: c.name, Routes: c.routes}, "rgate")
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := g.join(terms, nil); err != nil {
				t.Fatal(err)
			}
		}
		f.clock.Advance(-30 * 24 * time.Hour) // the month before
		g.uses(Key{Service: "web", Route: "/api/a"}, Bytes{Egress: 1 << 40, Ingress: 1 << 40})
		f.clock.Advance(29 * 24 * time.Hour) // yesterday
		g.uses(Key{Service: "web", Route: "/api/a"}, Bytes{Egress: 1, Ingress: 10, EgressHeaders: 100, IngressHeaders: 1000})
		f.clock.Advance(24 * time.Hour)
		g.uses(Key{Service: "web", Route: "/api/b"}, Bytes{Egress: 2, Ingress: 20, EgressHeaders: 200})
		g.uses(Key{Service: "web", Route: "/c"}, Bytes{Egress: 4, Ingress: 40})
		g.uses(Key{Service: "web", Route: "/c", Consumer: "alice"}, Bytes{Egress: 1 << 30})
		g.l.Add("kong", map[Key]Bytes{{Service: "web", Route: "/api/a"}: {Egress: 8, Ingress: 80}}) // not written yet
		g.audits()
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

// While the database is away, what was decided holds, until its period ends.
func TestDatabaseIsAway(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		g := f.gateway("gw-1")
		acc, _ := g.quota("web", &Quota{Egress: 1000, AtLimit: limitBlock})
		g.sends("web", 1000)
		g.audits()
		if err := g.l.db.Close(); err != nil {
			t.Fatal(err)
		}
		err := g.audit(context.Background())
		g.note(err)
		if err == nil || acc.whole.Load() == nil {
			t.Errorf("got %v, and the verdict %v", err, acc.whole.Load())
		}
		if d := g.dependency().(policy.Dependency); d.Up || d.Error == "" {
			t.Errorf("the health is %+v", d)
		}
	})
}

// Two quotas that nobody could tell apart are an error.
func TestTheSameQuotaTwice(t *testing.T) {
	g := newAuditor("rgate")
	config := new(int)
	terms := quotaTerms(t, "backend", "web", &Quota{Egress: 1})
	if _, _, err := g.join(terms, config); err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.join(terms, config); err == nil || !strings.Contains(err.Error(), "give one of the two a name") {
		t.Errorf("got %v", err)
	}
	for _, other := range []*Quota{{Egress: 1, Name: "b"}, {Egress: 1, Period: "day"}, {Egress: 1, Per: perConsumer}} {
		if _, _, err := g.join(quotaTerms(t, "backend", "web", other), config); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := g.join(terms, new(int)); err != nil {
		t.Errorf("another configuration: %v", err)
	}
}

// The messages of two databases are different ones, although all else is the same.
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
		t.Errorf("%d messages have the names %v", len(messages), ids)
	}
}
