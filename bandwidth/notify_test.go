package bandwidth

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth/mailtest"
	"github.com/rgate/rgate/bandwidth/notify"
)

func TestEachThresholdSendsOneMessage(t *testing.T) {
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
		server.MustHave(t, "at 79.9 %")
		g.mustHaveThresholds("at 79.9 %", "80, 90, 100")

		g.sends("web", 100)
		g.turn()
		g.turn()
		server.MustHave(t, "at 80.0 %", at80)
		g.mustHaveThresholds("at 80.0 %", "80 sent, 90, 100")

		g.sends("web", 25_000)
		g.turn()
		g.turn()
		server.MustHave(t, "at 105 %", at80, at105)
		g.mustHaveThresholds("at 105 %", "80 sent, 90 sent, 100 sent")
		if last := server.Messages()[1]; !strings.Contains(last.Plain, "reached: 80 %, 90 %, 100 %") {
			t.Errorf("the mail is %s", last.Plain)
		}

		again := f.gateway("gw-1")
		again.quota("web", quota)
		again.notify(notify)
		again.turn()
		again.sends("web", 1)
		again.turn()
		server.MustHave(t, "after a restart", at80, at105)
		again.mustHaveThresholds("after a restart", "80 sent, 90 sent, 100 sent")

		f.clock.Advance(11 * 24 * time.Hour) // December
		again.turn()
		server.MustHave(t, "in the next period", at80, at105)
		again.mustHaveThresholds("in the next period", "80, 90, 100")
		again.sends("web", 80_000)
		again.turn()
		server.MustHave(t, "in the next period", at80, at105, "[rgate] web has used 80.0 % of its egress for December 2026")
	})
}

// Usage that exceeds several thresholds in one evaluation sends one message.
func TestSeveralThresholdsAtOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		server := mailtest.Start(t)
		g := f.gateway("gw-1")
		g.quota("web", &Quota{Egress: 100_000})
		g.notify(&Notify{SMTP: mailOptions(server)})
		g.sends("web", 105_000)
		g.turn()
		g.turn()
		server.MustHave(t, "at 105 %", at105)
		g.mustHaveThresholds("at 105 %", "80 sent, 90 sent, 100 sent")
	})
}

// If several gateways reach a threshold at the same time, one sends the message.
func TestOneOfSeveralGatewaysSends(t *testing.T) {
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
		server.MustHave(t, "at 105 %", at105)
		for _, g := range gateways {
			g.mustHaveThresholds(g.store.Node(), "80 sent, 90 sent, 100 sent")
			if state := g.quotas[specOf(t, "backend", "web", &Quota{Egress: 1}).key].whole.Load(); state == nil || state.used != 105_000 {
				t.Errorf("%s: the state is %+v", g.store.Node(), state)
			}
		}
	})
}

// Quotas are enforced while the mail server is down.
func TestQuotaIsEnforcedWithoutMail(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		server := mailtest.Start(t)
		server.Stop()
		g := f.gateway("gw-1")
		q, _ := g.quota("web", &Quota{Egress: 100_000, AtLimit: limitBlock})
		g.notify(&Notify{SMTP: mailOptions(server)})
		g.sends("web", 100_000)
		g.turn()
		if q.whole.Load() == nil {
			t.Error("it is not blocked")
		}
		g.mustHaveThresholds("without a server", "80 pending, 90 pending, 100 pending")
	})
}

// Raising a limit does not repeat messages.
func TestRaisedQuota(t *testing.T) {
	eachStore(t, func(t *testing.T, f *quotaFleet) {
		server := mailtest.Start(t)
		g := f.gateway("gw-1")
		g.notify(&Notify{SMTP: mailOptions(server)})
		_, leave := g.quota("web", &Quota{Egress: 100_000})
		g.sends("web", 95_000)
		g.turn()
		const at95 = "[rgate] web has used 95.0 % of its egress for November 2026"
		server.MustHave(t, "at 95 %", at95)

		_, leave2 := g.quota("web", &Quota{Egress: 200_000, Thresholds: []int{40, 80, 90, 100}})
		leave()
		g.turn()
		g.sends("web", 85_000) // 90% of the new limit
		g.turn()
		server.MustHave(t, "raised", at95)
		g.mustHaveThresholds("raised", "40 no message, 80 sent, 90 sent, 100")
		g.sends("web", 20_000)
		g.turn()
		server.MustHave(t, "at 100 %", at95, "[rgate] web has used up its egress for November 2026: 100.0 %")

		// Removing the older configuration has no effect.
		leave2()
		if len(g.quotas) != 0 {
			t.Errorf("there are %d quotas", len(g.quotas))
		}
	})
}

func TestNotifyOptions(t *testing.T) {
	for _, c := range []struct {
		notify      Notify
		field, want string
	}{
		{Notify{}, "smtp", "set smtp, webhook or both"},
		{Notify{Webhook: &notify.Webhook{URL: "https://a.example/"}, Link: "dashboard"}, "link", "https://gateway.example.com/dashboard"},
		{Notify{Webhook: new(notify.Webhook)}, "webhook.url", "url is required"},
		{Notify{SMTP: new(notify.SMTP)}, "smtp.address", "address is required"},
	} {
		err := c.notify.Check()
		var field interface{ Field() string }
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &field) || field.Field() != c.field {
			t.Errorf("%+v: got %v, want %q at %s", c.notify, err, c.want, c.field)
		}
	}
}
