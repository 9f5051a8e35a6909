// Package notify sends messages about quota thresholds by mail and webhook. It queues
// messages in an outbox in the usage store's database until they are delivered.
package notify

import (
	"context"
	"crypto/rand"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/internal/pause"
	"github.com/rgate/rgate/internal/status"
)

// Config holds the dependencies of a Notifier.
type Config struct {
	Gateway   string             // gateway name, for metrics
	DB        func() *store.DB   // returns the database of the outbox; nil if there is none
	Now       func() time.Time   // returns the current time
	Logger    func() *zap.Logger // returns the current logger
	Keep      time.Duration      // retention of events and messages
	OnAttempt func()             // called after delivery attempts, successful or not
}

// Notifier delivers the messages in the outbox of a gateway's usage store.
type Notifier struct {
	Config
	holder string // random ID of the lease holder

	mu       sync.Mutex
	used     []*Channels       // by configuration, the newest last. Guarded by mu.
	retry    bool              // whether to retry failed deliveries. Guarded by mu.
	hurry    bool              // whether to retry pending deliveries immediately as well. Guarded by mu.
	problems map[string]string // error of the last attempt by channel; empty if it succeeded. Guarded by mu.

	cleaned time.Time // last deletion of old messages; only used by the loop goroutine

	wake   chan struct{}
	ending chan struct{}
	ended  chan struct{}
}

const (
	// startDelay delays the first read of the outbox, so that a configuration that fails
	// to load does not open the database.
	startDelay = time.Second
	// pollInterval is the maximum interval between reads of the outbox.
	pollInterval = 15 * time.Second
	// leaseMargin is added to a channel's timeout to get the lease duration.
	leaseMargin = 30 * time.Second
	// giveUpAfter is the age after which a delivery is abandoned.
	giveUpAfter = 7 * 24 * time.Hour
	// shutdownTimeout is the time that a delivery in progress has after Stop.
	shutdownTimeout = 5 * time.Second

	maxDeliveries = 50 // per read
)

// New returns a notifier without channels. Deliveries start with Run.
func New(c Config) *Notifier {
	return &Notifier{
		Config: c, holder: rand.Text(), problems: make(map[string]string),
		wake: make(chan struct{}, 1), ending: make(chan struct{}), ended: make(chan struct{}),
	}
}

// Use sets the channels, until a newer configuration replaces them or leave is called.
func (n *Notifier) Use(channels *Channels) (leave func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i := len(n.used); i == 0 || !reflect.DeepEqual(n.used[i-1], channels) {
		n.retry, n.hurry = true, i > 0 // the new configuration may resolve earlier failures
	}
	n.used = append(n.used, channels)
	n.Wake()
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.used = slices.DeleteFunc(n.used, func(c *Channels) bool { return c == channels })
	}
}

// channels returns the channels of the newest configuration.
func (n *Notifier) channels() *Channels {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i := len(n.used); i > 0 {
		return n.used[i-1]
	}
	return new(Channels)
}

// Health returns the health of a channel: whether its last delivery attempt succeeded.
func (n *Notifier) Health(channels *Channels, channel string) status.Dependency {
	n.mu.Lock()
	defer n.mu.Unlock()
	problem := n.problems[channel]
	return status.Dependency{Name: channels.describe(channel), Up: problem == "", Error: problem}
}

// Wake triggers a read of the outbox.
func (n *Notifier) Wake() { pause.Wake(n.wake) }

// Run delivers messages until ctx is done or Stop is called.
func (n *Notifier) Run(ctx context.Context) {
	defer close(n.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // Stop ends the wait, but not a delivery in progress
		defer stop()
		select {
		case <-n.ending:
		case <-ctx.Done():
		}
	}()
	for ok := pause.For(waiting, startDelay); ok; {
		interval := pollInterval
		if db := n.DB(); db != nil {
			var err error
			if interval, err = n.DeliverDue(ctx, db); err != nil && ctx.Err() == nil {
				n.Logger().Debug("accessing the outbox failed", zap.Error(err)) // debug level: the evaluator warns about the same database
			}
		}
		ok = pause.UntilWoken(waiting, n.wake, 0, interval)
	}
}

// Stop ends Run. It waits a few seconds for a delivery in progress.
func (n *Notifier) Stop() {
	close(n.ending)
	select {
	case <-n.ended:
	case <-time.After(shutdownTimeout):
	}
}

// DeliverDue attempts each due delivery once. It returns the time until the next read,
// and an error if the database fails.
func (n *Notifier) DeliverDue(ctx context.Context, db *store.DB) (wait time.Duration, err error) {
	now := n.Now()
	if err := n.maintain(ctx, db, now); err != nil {
		return pollInterval, err
	}
	channels := n.channels() // others belong to another gateway or an older configuration
	deliveries, err := pendingDeliveries(ctx, db, channels.Names(), maxDeliveries)
	if err != nil {
		return pollInterval, err
	}
	wait, tried := pollInterval, false
	for i := range deliveries {
		d := &deliveries[i]
		if due := time.Unix(d.next, 0).Sub(now); due > 0 {
			wait = min(wait, due)
			continue
		}
		if n.isEnding() {
			break
		}
		if err := n.deliver(ctx, db, channels, d); err != nil {
			return pollInterval, err
		}
		tried, wait = true, min(wait, firstRetry)
	}
	if problems, err := lastProblems(ctx, db, now.Add(-giveUpAfter)); err == nil {
		n.mu.Lock()
		n.problems = problems
		n.mu.Unlock()
	}
	if tried {
		n.OnAttempt()
	}
	return wait, nil
}

func (n *Notifier) isEnding() bool {
	select {
	case <-n.ending:
		return true
	default:
		return false
	}
}

// maintain retries failed deliveries once after a configuration change, and deletes old
// messages once a day.
func (n *Notifier) maintain(ctx context.Context, db *store.DB, now time.Time) error {
	n.mu.Lock()
	retry, hurry := n.retry, n.hurry
	n.mu.Unlock()
	if retry {
		if err := retryFailed(ctx, db, now, now.Add(-giveUpAfter), hurry); err != nil {
			return err
		}
		n.mu.Lock()
		n.retry = false
		n.mu.Unlock()
	}
	if now.Sub(n.cleaned) < 24*time.Hour {
		return nil
	}
	n.cleaned = now
	return deleteOld(ctx, db, now.Add(-n.Keep))
}

// deliver attempts a delivery and stores the outcome, unless another gateway holds the
// lease. It returns an error if the database fails.
func (n *Notifier) deliver(ctx context.Context, db *store.DB, channels *Channels, d *delivery) error {
	now := n.Now()
	claimed, err := d.claim(ctx, db, n.holder, now, now.Add(channels.timeout(d.channel)+leaseMargin))
	if err != nil || !claimed {
		return err
	}
	wait, problem := channels.send(ctx, d)
	now = n.Now()
	state, next, text := deliverySent, now, ""
	if problem != nil {
		text = problem.Error()
		switch {
		case isPermanent(problem):
			state = deliveryFailed
		case now.Sub(time.Unix(d.created, 0)) > giveUpAfter:
			state, text = deliveryFailed, fmt.Sprintf("gave up after %d attempts: %s", d.attempts+1, text)
		default:
			state, next = deliveryPending, now.Add(max(wait, retryDelay(d.attempts+1)))
		}
	}
	n.logOutcome(d, state, problem, next.Sub(now))
	// Record the outcome even if ctx is canceled, so that no other gateway sends the
	// message again.
	recording, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	return d.finish(recording, db, n.holder, state, text, now, next)
}

// logOutcome counts and logs an attempt.
func (n *Notifier) logOutcome(d *delivery, state string, problem error, wait time.Duration) {
	logger := n.Logger().With(zap.String("channel", d.channel), zap.String("quota", d.alert.Name),
		zap.Int("threshold", d.alert.Threshold), zap.String("message", d.message), zap.Int("attempt", d.attempts+1))
	counted := state
	if state == deliveryPending {
		counted = stateRetried
	}
	attempts.Count(attempt{n.Gateway, d.channel, counted})
	switch state {
	case deliverySent:
		logger.Info("quota notification delivered")
	case deliveryFailed:
		logger.Error("delivering quota notification failed, giving up", zap.Error(problem))
	default:
		logger.Warn("delivering quota notification failed, retrying", zap.Error(problem), zap.Duration("again_in", wait.Round(time.Second)))
	}
}
