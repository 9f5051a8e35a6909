package notify

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rgate/rgate/bandwidth/mailtest"
	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/bandwidth/storetest"
)

// fleet is a database shared by several gateways, and their clock.
type fleet struct {
	t     *testing.T
	clock *storetest.Clock
	url   string
}

// onBothEngines runs a test with each database engine.
func onBothEngines(t *testing.T, test func(*testing.T, *fleet)) {
	storetest.OnBothEngines(t, func(t *testing.T, url string) {
		test(t, &fleet{t, storetest.ClockAt(t, "2026-11-20T12:00:30Z"), url})
	})
}

// gateway is a gateway's notifier. Tests trigger its deliveries.
type gateway struct {
	*Notifier
	t      *testing.T
	db     *store.DB
	clock  *storetest.Clock
	logged *observer.ObservedLogs
}

// gateway returns a new notifier on the fleet's database.
func (f *fleet) gateway(node string) *gateway {
	f.t.Helper()
	at, err := store.ParseAddress(f.url)
	if err != nil {
		f.t.Fatal(err)
	}
	s := store.New("rgate", node, at, new(storetest.Recorder), f.clock.Now, zap.NewNop())
	f.t.Cleanup(func() { _ = s.Close() })
	core, logged := observer.New(zap.DebugLevel)
	logger := zap.New(core)
	return &gateway{
		t: f.t, db: s.DB(), clock: f.clock, logged: logged,
		Notifier: New(Config{
			Gateway: "rgate", DB: s.DB, Now: f.clock.Now, Logger: func() *zap.Logger { return logger },
			Keep: 1000 * time.Hour, OnAttempt: func() {},
		}),
	}
}

// use sets a mail channel.
func (g *gateway) use(smtp *SMTP) (leave func()) {
	g.t.Helper()
	return g.Use(openChannels(g.t, smtp, nil, ""))
}

func (g *gateway) allocation() Allocation {
	return Allocation{Quota: "rgate|web", Direction: "egress", Start: storetest.Time(g.t, "2026-11-01T00:00:00Z").Unix()}
}

// reach records that the threshold of 80% is reached.
func (g *gateway) reach() {
	g.t.Helper()
	a := sampleAlert()
	a.At = g.clock.Now()
	if queued, err := g.Record(g.t.Context(), g.db, g.allocation(), &a); err != nil || !queued {
		g.t.Fatalf("queued: %v, %v", queued, err)
	}
}

func (g *gateway) deliver() {
	g.t.Helper()
	if _, err := g.DeliverDue(g.t.Context(), g.db); err != nil {
		g.t.Fatal(err)
	}
}

// mustHaveStates compares the delivery states of the message about 80%, such as `pending
// sent`.
func (g *gateway) mustHaveStates(when, want string) {
	g.t.Helper()
	events, err := ReadEvents(g.t.Context(), g.db, g.clock.Now())
	if err != nil {
		g.t.Fatal(err)
	}
	var states []string
	for _, d := range events[g.allocation()][80].Deliveries {
		states = append(states, d.State)
	}
	if got := strings.Join(states, " "); got != want {
		g.t.Errorf("%s: the deliveries are %q, want %q", when, got, want)
	}
}

const subjectAt80 = "[rgate] payment has used 80.0 % of its egress for November 2026"

func TestDeliveryIsRetried(t *testing.T) {
	onBothEngines(t, func(t *testing.T, f *fleet) {
		server := mailtest.Start(t)
		server.Reply("DATA", 451, 2)
		g := f.gateway("gw-1")
		g.use(mailOptions(server))
		g.reach()
		g.deliver()
		g.deliver() // before the retry is due
		g.mustHaveStates("after 451", "pending")
		if n := server.Attempts(); n != 1 {
			t.Errorf("after 451 once: %d attempts", n)
		}
		f.clock.Advance(3 * time.Second)
		g.deliver()
		server.MustHave(t, "after 451 twice")

		again := f.gateway("gw-1") // the outbox survives a restart
		again.use(mailOptions(server))
		again.deliver() // before the retry is due
		server.MustHave(t, "after a restart")
		f.clock.Advance(5 * time.Second)
		again.deliver()
		server.MustHave(t, "after 451 twice and 250", subjectAt80)
		again.mustHaveStates("after 250", "sent")
		f.clock.Advance(time.Hour)
		again.deliver()
		if n := server.Attempts(); n != 3 {
			t.Errorf("%d attempts, want 3", n)
		}
	})
}

func TestMailServerIsDown(t *testing.T) {
	onBothEngines(t, func(t *testing.T, f *fleet) {
		server := mailtest.Start(t)
		server.Stop()
		g := f.gateway("gw-1")
		g.use(mailOptions(server))
		g.reach()
		const attempts = 60
		for range attempts {
			g.deliver()
			f.clock.Advance(lastRetry)
		}
		g.mustHaveStates("without a server", "pending")
		if health := g.Health(g.channels(), channelMail); health.Up || !strings.Contains(health.Error, "connection refused") || health.Name != "mail "+server.Address {
			t.Errorf("the health is %+v", health)
		}
		server.Restart()
		g.deliver()
		server.MustHave(t, "after the restart of the server", subjectAt80)
		if health := g.Health(g.channels(), channelMail); !health.Up {
			t.Errorf("the health is %+v", health)
		}
		if id := server.Messages()[0].Header.Get("Message-Id"); !strings.HasPrefix(id, "<rgate.") || !strings.HasSuffix(id, "@example.com>") {
			t.Errorf("the Message-ID is %s", id)
		}
	})
}

// Permanent failures are not retried until the configuration changes.
func TestPermanentFailures(t *testing.T) {
	onBothEngines(t, func(t *testing.T, f *fleet) {
		server := mailtest.Start(t)
		g := f.gateway("gw-1")
		wrong := mailOptions(server)
		wrong.Password = "wrong"
		leave := g.use(wrong)
		g.reach()
		for range 5 {
			g.deliver()
			f.clock.Advance(time.Hour)
		}
		g.mustHaveStates("with a wrong password", "failed")
		if n := server.Attempts(); n != 1 {
			t.Errorf("%d attempts, want 1", n)
		}
		if health := g.Health(g.channels(), channelMail); health.Up || !strings.Contains(health.Error, "535") {
			t.Errorf("the health is %+v", health)
		}
		if n := g.logged.FilterMessage("delivering quota notification failed, giving up").Len(); n != 1 {
			t.Errorf("the failure is logged %d times", n)
		}

		g.use(mailOptions(server))
		leave()
		g.deliver()
		server.MustHave(t, "with the right password", subjectAt80)
		g.mustHaveStates("with the right password", "sent")
		for _, entry := range g.logged.All() {
			if text := fmt.Sprint(entry.Message, entry.ContextMap()); strings.Contains(text, "wrong password") || strings.Contains(text, mailtest.Password) {
				t.Errorf("the log has the password: %s", text)
			}
		}
	})
}

func TestNewSettingsAreTriedAtOnce(t *testing.T) {
	onBothEngines(t, func(t *testing.T, f *fleet) {
		stopped, server := mailtest.Start(t), mailtest.Start(t)
		stopped.Stop()
		g := f.gateway("gw-1")
		leave := g.use(mailOptions(stopped))
		g.reach()
		for range 10 {
			g.deliver()
			f.clock.Advance(10 * time.Minute)
		}
		g.deliver()
		g.use(mailOptions(server))
		leave()
		g.deliver()
		server.MustHave(t, "with another server", subjectAt80)
	})
}

// Deliveries of a message by mail and by webhook are independent.
func TestChannelsAreIndependent(t *testing.T) {
	onBothEngines(t, func(t *testing.T, f *fleet) {
		server := mailtest.Start(t)
		server.Stop()
		hook := startWebhook(t, 503, 500, 200)
		g := f.gateway("gw-1")
		g.Use(openChannels(t, mailOptions(server), &Webhook{URL: hook.URL}, "https://gw.example.com/"))
		g.reach()
		g.deliver()
		g.mustHaveStates("after 503", "pending pending")
		for range 4 {
			f.clock.Advance(20 * time.Second)
			g.deliver()
		}
		g.mustHaveStates("after 200", "pending sent")
		bodies := hook.bodies()
		if len(bodies) != 3 || bodies[0] != bodies[2] || !strings.HasPrefix(bodies[2], `{"text":"payment has used 80.0 % of its egress for November 2026.`) {
			t.Errorf("the webhook got %q", bodies)
		}
		server.Restart()
		f.clock.Advance(lastRetry)
		g.deliver()
		server.MustHave(t, "after the restart of the server", subjectAt80)
		if n := len(hook.bodies()); n != 3 {
			t.Errorf("the webhook got %d messages", n)
		}
	})
}

// If a gateway stops during a delivery, another one delivers the message when the lease
// expires.
func TestLeaseEnds(t *testing.T) {
	onBothEngines(t, func(t *testing.T, f *fleet) {
		server := mailtest.Start(t)
		first, second := f.gateway("gw-1"), f.gateway("gw-2")
		first.use(mailOptions(server))
		second.use(mailOptions(server))
		first.reach()
		deliveries, err := pendingDeliveries(t.Context(), first.db, []string{channelMail, channelWebhook}, 10)
		if err != nil || len(deliveries) != 1 {
			t.Fatalf("got %v, %v", deliveries, err)
		}
		now := f.clock.Now()
		if claimed, err := deliveries[0].claim(t.Context(), first.db, "first", now, now.Add(time.Minute)); err != nil || !claimed {
			t.Fatalf("got %v, %v", claimed, err)
		}
		if claimed, err := deliveries[0].claim(t.Context(), second.db, "second", now, now.Add(time.Minute)); err != nil || claimed {
			t.Fatalf("two gateways have the lease: %v", err)
		}
		second.deliver()
		server.MustHave(t, "during the lease")
		f.clock.Advance(time.Minute)
		second.deliver()
		server.MustHave(t, "after the lease", subjectAt80)
		// A gateway that lost its lease must not store an outcome.
		if err := deliveries[0].finish(t.Context(), first.db, "first", deliveryPending, "", f.clock.Now(), f.clock.Now()); err != nil {
			t.Fatal(err)
		}
		second.deliver()
		server.MustHave(t, "in the end", subjectAt80)
	})
}

func TestRetryDelays(t *testing.T) {
	for failed := 1; failed < 40; failed++ {
		low, high := time.Duration(math.MaxInt64), time.Duration(0)
		for range 1000 {
			d := retryDelay(failed)
			low, high = min(low, d), max(high, d)
		}
		if low < firstRetry || high > lastRetry || low < high/3 {
			t.Errorf("after %d failures: between %v and %v", failed, low, high)
		}
		if high-low < high/4 {
			t.Errorf("after %d failures: all between %v and %v", failed, low, high)
		}
	}
	if d := retryDelay(40); d < lastRetry/2 {
		t.Errorf("in the end: got %v", d)
	}
}
