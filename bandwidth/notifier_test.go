package bandwidth

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth/mailtest"
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
			g.mustBeTold(g.l.Node(), "80 sent, 90 sent, 100 sent")
			if v := g.accounts[quotaTerms(t, "backend", "web", &Quota{Egress: 1}).key].whole.Load(); v == nil || v.used != 105_000 {
				t.Errorf("%s: the verdict is %+v", g.l.Node(), v)
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
		if up := g.notifier.dependency(g.notifier.channels(), channelMail); up.Up || !strings.Contains(up.Error, "connection refused") || up.Name != "mail "+server.Address {
			t.Errorf("the health is %+v", up)
		}
		server.Restart()
		g.turn()
		mustHaveMail(t, "with the server back", server, "[rgate] web has used up its egress for November 2026: 100.0 %")
		if up := g.notifier.dependency(g.notifier.channels(), channelMail); !up.Up {
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
		if up := g.notifier.dependency(g.notifier.channels(), channelMail); up.Up || !strings.Contains(up.Error, "535") {
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

// New settings are tried at once.
func TestNewSettingsAreTriedAtOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		gone, server := mailtest.Start(t), mailtest.Start(t)
		gone.Stop()
		g := f.gateway("gw-1")
		g.quota("web", &Quota{Egress: 100_000})
		leave := g.notify(&Notify{SMTP: mailOptions(gone)})
		g.sends("web", 80_000)
		for range 10 {
			g.turn()
			f.clock.Advance(10 * time.Minute)
		}
		g.turn()
		g.notify(&Notify{SMTP: mailOptions(server)})
		leave()
		g.turn()
		mustHaveMail(t, "with another server", server, at80)
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
		letters, err := pendingDeliveries(t.Context(), first.l.DB(), 10)
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
		if err := letters[0].finish(t.Context(), first.l.DB(), "first", deliveryPending, "", f.clock.Now(), f.clock.Now()); err != nil {
			t.Fatal(err)
		}
		second.turn()
		mustHaveMail(t, "in the end", server, at80)
	})
}
