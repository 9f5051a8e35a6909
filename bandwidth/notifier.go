package bandwidth

import (
	"context"
	"crypto/rand"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/internal/pause"
	"github.com/rgate/rgate/policy"
)

// notifier delivers the messages of an auditor's outbox.
type notifier struct {
	evaluator *quotaEvaluator
	holder    string // what it calls itself where it takes a message on

	mu       sync.Mutex
	settings []*channels       // of configurations, the newest last; guarded by mu.
	reopen   bool              // what has failed is to be tried once more; guarded by mu.
	hurry    bool              // and what waits, at once; guarded by mu.
	problems map[string]string // with the last deliveries, by channel; guarded by mu.
	forgot   time.Time         // when old messages were deleted; the loop's alone

	wake   chan struct{}
	ending chan struct{}
	ended  chan struct{}
}

// The channels.
const (
	channelMail    = "mail"
	channelWebhook = "webhook"
)

const (
	// How often messages are looked for that another gateway has left behind.
	notifierInterval = 15 * time.Second
	// How much longer than its time limit a message is one gateway's.
	leaseMargin = 30 * time.Second
	// Who has not been reached by then will not be.
	giveUpAfter = 7 * 24 * time.Hour
	// How long a delivery under way has when the gateway ends.
	shutdownTimeout = 5 * time.Second
	// Longer than two of the longest periods.
	forgetAfter = 2 * (maxPeriodDays + 1) * 24 * time.Hour

	maxDeliveries = 50
)

func newNotifier(a *quotaEvaluator) *notifier {
	return &notifier{evaluator: a, holder: rand.Text(), problems: make(map[string]string), wake: make(chan struct{}, 1), ending: make(chan struct{}), ended: make(chan struct{})}
}

// names lists the channels that there are.
func (c *channels) names() (names []string) {
	if c.mail != nil {
		names = append(names, channelMail)
	}
	if c.hook != nil {
		names = append(names, channelWebhook)
	}
	return names
}

// joinNotify makes settings those of a gateway's messages, until a newer configuration
// brings others.
func joinNotify(ctx caddy.Context, gateway string, settings *channels) (leave func(), err error) {
	a, release, err := holdEvaluator(ctx, gateway)
	if err != nil {
		return nil, err
	}
	left := a.notifier.join(settings)
	var ends []func()
	for _, name := range settings.names() {
		ends = append(ends, policy.Publish(policy.Dependencies, policy.RouteInfo{}, func() any { return a.notifier.dependency(settings, name) }))
	}
	return func() {
		for _, end := range ends {
			end()
		}
		left()
		release()
	}, nil
}

// dependency tells whether messages can be delivered in a way.
func (c *notifier) dependency(settings *channels, channel string) policy.Dependency {
	c.mu.Lock()
	defer c.mu.Unlock()
	problem := c.problems[channel]
	return policy.Dependency{Name: settings.describe(channel), Up: problem == "", Error: problem}
}

// describe says where messages go in a way, without secrets.
func (c *channels) describe(channel string) string {
	if channel == channelMail {
		return "mail " + c.mail.address
	}
	return "webhook " + c.hook.host()
}

func (c *notifier) join(settings *channels) (leave func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.settings); n == 0 || !reflect.DeepEqual(c.settings[n-1], settings) {
		c.reopen, c.hurry = true, n > 0 // somebody may have mended what was wrong
	}
	c.settings = append(c.settings, settings)
	pause.Wake(c.wake)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.settings = slices.DeleteFunc(c.settings, func(s *channels) bool { return s == settings })
	}
}

// channels are the ways in which messages go now.
func (c *notifier) channels() *channels {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.settings); n > 0 {
		return c.settings[n-1]
	}
	return new(channels)
}

func (c *notifier) loop(ctx context.Context) {
	defer close(c.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // a delivery goes on while nothing new begins
		defer stop()
		select {
		case <-c.ending:
		case <-ctx.Done():
		}
	}()
	for ok := pause.For(waiting, firstEvaluation); ok; {
		interval := notifierInterval
		if l := c.evaluator.ledger(); l != nil {
			interval = c.round(ctx, l)
		}
		ok = pause.UntilWoken(waiting, c.wake, 0, interval)
	}
}

// finish lets a delivery that is under way come to its end, for a little while.
func (c *notifier) finish() {
	close(c.ending)
	select {
	case <-c.ended:
	case <-time.After(shutdownTimeout):
	}
}

// round delivers what is due, and returns when to look again.
func (c *notifier) round(ctx context.Context, l *store.Store) time.Duration {
	wait, err := c.deliverDue(ctx, l.DB())
	if err != nil && ctx.Err() == nil {
		if entry := c.evaluator.logger.Load().Check(zap.DebugLevel, "the outbox cannot be read"); entry != nil {
			entry.Write(zap.Error(err)) // why, the auditor says, which reads the same database
		}
	}
	return wait
}

func (c *notifier) deliverDue(ctx context.Context, db *store.DB) (wait time.Duration, err error) {
	now := c.evaluator.now()
	if err := c.tidy(ctx, db, now); err != nil {
		return notifierInterval, err
	}
	letters, err := pendingDeliveries(ctx, db, maxDeliveries)
	if err != nil {
		return notifierInterval, err
	}
	ways := c.channels()
	wait, tried := notifierInterval, false
	for i := range letters {
		letter := &letters[i]
		if !slices.Contains(ways.names(), letter.channel) {
			continue // of a gateway that has it, or had
		}
		if due := time.Unix(letter.next, 0).Sub(now); due > 0 {
			wait = min(wait, due)
			continue
		}
		if c.isEnding() {
			break
		}
		if err := c.deliver(ctx, db, ways, letter); err != nil {
			return notifierInterval, err
		}
		tried, wait = true, min(wait, firstRetry)
	}
	if problems, err := lastProblems(ctx, db, now.Add(-giveUpAfter)); err == nil {
		c.mu.Lock()
		c.problems = problems
		c.mu.Unlock()
	}
	if tried {
		pause.Wake(c.evaluator.wake) // which shows the states of deliveries
	}
	return wait, nil
}

func (c *notifier) isEnding() bool {
	select {
	case <-c.ending:
		return true
	default:
		return false
	}
}

// tidy does what is to be done once after a change of the configuration, and once a
// day.
func (c *notifier) tidy(ctx context.Context, db *store.DB, now time.Time) error {
	c.mu.Lock()
	again, hurry := c.reopen, c.hurry
	c.mu.Unlock()
	if again {
		if err := reopen(ctx, db, now, now.Add(-giveUpAfter), hurry); err != nil {
			return err
		}
		c.mu.Lock()
		c.reopen = false
		c.mu.Unlock()
	}
	if now.Sub(c.forgot) < 24*time.Hour {
		return nil
	}
	c.forgot = now
	return forget(ctx, db, now.Add(-forgetAfter))
}

// deliver tries to deliver a message, if no other gateway does, and writes down what
// came of it. The error is that of the database.
func (c *notifier) deliver(ctx context.Context, db *store.DB, ways *channels, l *delivery) error {
	now := c.evaluator.now()
	ours, err := l.claim(ctx, db, c.holder, now, now.Add(ways.timeout(l.channel)+leaseMargin))
	if err != nil || !ours {
		return err
	}
	wait, problem := ways.send(ctx, l)
	now = c.evaluator.now()
	state, next, text := deliverySent, now, ""
	if problem != nil {
		text = problem.Error()
		switch {
		case isPermanent(problem):
			state = deliveryFailed
		case now.Sub(time.Unix(l.created, 0)) > giveUpAfter:
			state, text = deliveryFailed, fmt.Sprintf("given up after %d attempts: %s", l.attempts+1, text)
		default:
			state, next = deliveryPending, now.Add(max(wait, retryPause(l.attempts+1)))
		}
	}
	c.logOutcome(l, state, problem, next.Sub(now))
	// What has been delivered shall be known to have been, whatever ends in the meantime.
	recording, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	return l.finish(recording, db, c.holder, state, text, now, next)
}

// logOutcome counts and logs what came of an attempt.
func (c *notifier) logOutcome(l *delivery, state string, problem error, wait time.Duration) {
	logger := c.evaluator.logger.Load().With(zap.String("channel", l.channel), zap.String("quota", l.alert.Name),
		zap.Int("threshold", l.alert.Threshold), zap.String("message", l.message), zap.Int("attempt", l.attempts+1))
	counted := state
	if state == deliveryPending {
		counted = notificationRetried
	}
	notifications.Count(notification{c.evaluator.gateway, l.channel, counted})
	switch state {
	case deliverySent:
		logger.Info("message about a quota delivered")
	case deliveryFailed:
		logger.Error("message about a quota cannot be delivered", zap.Error(problem))
	default:
		logger.Warn("message about a quota not delivered yet", zap.Error(problem), zap.Duration("again_in", wait.Round(time.Second)))
	}
}

func (c *channels) timeout(channel string) time.Duration {
	if channel == channelMail {
		return c.mail.timeout
	}
	return c.hook.timeout
}

// send delivers a message in its way. Who has got it is noted in the letter.
func (c *channels) send(ctx context.Context, l *delivery) (wait time.Duration, err error) {
	if l.channel == channelWebhook {
		return c.hook.post(ctx, l.message, l.alert.webhookBody(c.link))
	}
	delivered, err := c.mail.send(ctx, l.message, l.alert.At, l.alert.mail(c.link), l.delivered)
	l.delivered = append(l.delivered, delivered...)
	return 0, err
}
