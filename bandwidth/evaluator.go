package bandwidth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/rgate/rgate/bandwidth/notify"
	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/internal/metrics"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/pause"
	"github.com/rgate/rgate/internal/status"
)

// quotaEvaluator evaluates the quotas of a gateway against its usage store every few
// seconds, and records reached thresholds. It survives configuration reloads. Requests
// read its results without locking.
type quotaEvaluator struct {
	gateway    string
	usageStore func() *store.Store // returns nil if there is no store
	now        func() time.Time
	logger     atomic.Pointer[zap.Logger]
	notifier   *notify.Notifier

	mu      sync.Mutex
	quotas  map[string]*sharedQuota // by quotaSpec.key. Guarded by mu.
	states  []QuotaState            // result of the last evaluation. Guarded by mu.
	problem string                  // error of the last evaluation; empty if it succeeded. Guarded by mu.

	// Only used by the loop goroutine, and by Destruct after its end.
	attached *store.Store
	detach   func()
	marks    map[int64]func() // functions that remove marks of the usage store, by period start

	wake    chan struct{}
	cancel  context.CancelFunc
	ended   sync.WaitGroup
	publish []func()
}

const (
	// evaluateInterval is the maximum pause between evaluations, unless they are slow. In
	// this time, usage that other gateways wrote is evaluated.
	evaluateInterval = 2 * time.Second
	// firstEvaluation delays the first evaluation, so that a configuration that fails to
	// load does not open the database.
	firstEvaluation = time.Second
	longestRest     = 4 * time.Second
	// lastEvaluation is the maximum duration of the evaluation at the end of the process.
	lastEvaluation = 3 * time.Second
	// evaluateTimeout is the maximum duration of an evaluation of all quotas.
	evaluateTimeout = 30 * time.Second
	// keepEvents is the retention of events. It exceeds two of the longest periods.
	keepEvents = 2 * (maxPeriodDays + 1) * 24 * time.Hour
)

// evaluators holds the evaluators of the process, by gateway.
var evaluators = caddy.NewUsagePool()

// holdEvaluator returns the evaluator of a gateway. The caller must call release when it
// no longer needs the evaluator.
func holdEvaluator(ctx caddy.Context, gateway string) (e *quotaEvaluator, release func(), err error) {
	value, _, err := evaluators.LoadOrNew(gateway, func() (caddy.Destructor, error) {
		e := newEvaluator(gateway)
		e.logger.Store(ctx.Logger())
		e.start()
		return e, nil
	})
	if err != nil {
		return nil, nil, err
	}
	e = value.(*quotaEvaluator)
	e.logger.Store(ctx.Logger()) // the old configuration's logger is closed with it
	release = func() { _, _ = evaluators.Delete(gateway) }
	if err := errors.Join(metrics.Register(ctx, quotaMetrics), metrics.Register(ctx, notify.Metrics)); err != nil {
		release()
		return nil, nil, err
	}
	return e, release, nil
}

func newEvaluator(gateway string) *quotaEvaluator {
	e := &quotaEvaluator{
		gateway: gateway, usageStore: func() *store.Store { return store.For(gateway) }, now: time.Now,
		quotas: make(map[string]*sharedQuota), marks: make(map[int64]func()), wake: make(chan struct{}, 1),
	}
	e.logger.Store(zap.NewNop())
	e.notifier = notify.New(notify.Config{
		Gateway: gateway, DB: e.db, Now: func() time.Time { return e.now() }, Logger: e.logger.Load, Keep: keepEvents,
		OnAttempt: func() { pause.Wake(e.wake) }, // reports contain delivery states
	})
	return e
}

func (e *quotaEvaluator) db() *store.DB {
	if s := e.usageStore(); s != nil {
		return s.DB()
	}
	return nil
}

// start starts the evaluation loop and the notifier.
func (e *quotaEvaluator) start() {
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	e.publish = []func(){
		status.Quotas.Publish(e.gateway, func() any { return e.report() }),
		status.Dependencies.Publish(status.Process{}, e.dependency),
	}
	e.ended.Go(func() { e.loop(ctx) })
	e.ended.Go(func() { e.notifier.Run(ctx) })
}

// Destruct implements caddy.Destructor. It waits a few seconds for a delivery in
// progress. At the end of the process, it records the thresholds that the last requests
// reached. Their messages are delivered after the next start.
func (e *quotaEvaluator) Destruct() error {
	for _, end := range e.publish {
		end()
	}
	e.notifier.Stop()
	e.cancel()
	e.ended.Wait()
	if s := e.usageStore(); s != nil && caddy.Exiting() {
		ctx, cancel := context.WithTimeout(context.Background(), lastEvaluation)
		defer cancel()
		s.Collect()
		e.setProblem(e.evaluate(ctx))
	}
	e.attach(nil)
	return nil
}

func (e *quotaEvaluator) loop(ctx context.Context) {
	for ok := pause.For(ctx, firstEvaluation); ok; {
		began := time.Now()
		if err := e.evaluate(ctx); ctx.Err() == nil { // ignore errors caused by shutdown
			e.setProblem(err)
		}
		// With many consumers an evaluation is slow. Pause for four times its duration, at
		// most longestRest.
		ok = pause.UntilWoken(ctx, e.wake, min(4*time.Since(began), longestRest), evaluateInterval)
	}
}

// setProblem stores the error of an evaluation, and logs the first failure and the
// recovery.
func (e *quotaEvaluator) setProblem(err error) {
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	e.mu.Lock()
	before := e.problem
	e.problem = problem
	e.mu.Unlock()
	switch {
	case problem != "" && before == "":
		e.logger.Load().Warn("evaluating quotas failed", zap.String("gateway", e.gateway), zap.Error(err))
	case problem == "" && before != "":
		e.logger.Load().Info("evaluating quotas succeeded again", zap.String("gateway", e.gateway))
	}
}

// attach subscribes to the flushes of s instead of the previous store. It removes the
// marks of the previous store.
func (e *quotaEvaluator) attach(s *store.Store) {
	if s == e.attached {
		return
	}
	if e.detach != nil {
		e.detach()
		e.detach = nil
	}
	for start, unmark := range e.marks {
		unmark()
		delete(e.marks, start)
	}
	if e.attached = s; s != nil {
		e.detach = s.AfterFlush(func() { pause.Wake(e.wake) })
	}
}

// joinQuota adds a quota to its gateway's evaluator. Requests read the result from the
// sharedQuota.
func joinQuota(ctx caddy.Context, spec *quotaSpec) (q *sharedQuota, leave func(), err error) {
	e, release, err := holdEvaluator(ctx, spec.gateway)
	if err != nil {
		return nil, nil, err
	}
	q, left, err := e.join(spec, ctx.GetMetricsRegistry())
	if err != nil {
		release()
		return nil, nil, err
	}
	return q, func() {
		if !caddy.Exiting() { // the last evaluation includes all quotas
			left()
		}
		release()
	}, nil
}

// join adds the spec of a quota. The spec applies until a newer configuration joins or
// leave is called. config identifies the configuration.
func (e *quotaEvaluator) join(spec *quotaSpec, config any) (q *sharedQuota, leave func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	q = e.quotas[spec.key]
	if q == nil {
		q = new(sharedQuota)
		e.quotas[spec.key] = q
	}
	for _, other := range q.members {
		if config != nil && other.config == config {
			return nil, nil, options.Errorf("name", "duplicate quota with the same period: set name on one of the two")
		}
	}
	joined := &quotaMember{spec, config}
	q.members = append(q.members, joined)
	pause.Wake(e.wake)
	return q, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		q.members = slices.DeleteFunc(q.members, func(m *quotaMember) bool { return m == joined })
		if len(q.members) == 0 && e.quotas[spec.key] == q {
			delete(e.quotas, spec.key)
		}
		pause.Wake(e.wake)
	}, nil
}

// currentSpecs returns the newest spec of each quota.
func (e *quotaEvaluator) currentSpecs() map[*sharedQuota]*quotaSpec {
	e.mu.Lock()
	defer e.mu.Unlock()
	specs := make(map[*sharedQuota]*quotaSpec, len(e.quotas))
	for _, q := range e.quotas {
		specs[q] = q.members[len(q.members)-1].spec
	}
	return specs
}

var errNoStore = errors.New("usage of this gateway is not recorded: add rgate_bandwidth")

// evaluate compares all quotas with the usage store, and records the reached thresholds.
func (e *quotaEvaluator) evaluate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, evaluateTimeout)
	defer cancel()
	s := e.usageStore()
	e.attach(s)
	specs := e.currentSpecs()
	if s == nil {
		return errNoStore
	}
	now := e.now()
	usage := newUsageCache(s, now)
	var all []evaluated
	for q, spec := range specs {
		states, err := e.evaluateQuota(ctx, usage, q, spec, now)
		if err != nil {
			return fmt.Errorf("reading usage: %w", err)
		}
		all = append(all, states...)
	}
	e.markPeriods(s, specs, now)

	events, err := notify.ReadEvents(ctx, s.DB(), now)
	if err != nil {
		return fmt.Errorf("reading events: %w", err)
	}
	recorded := false
	for i := range all {
		queued, err := e.recordThresholds(ctx, s.DB(), &all[i], events, now)
		if err != nil {
			return fmt.Errorf("recording a threshold: %w", err)
		}
		recorded = recorded || queued
	}
	if recorded {
		e.notifier.Wake()
		if events, err = notify.ReadEvents(ctx, s.DB(), now); err != nil {
			return fmt.Errorf("reading events: %w", err)
		}
	}
	e.setStates(all, events)
	return nil
}

// evaluated is the state of an allocation with the spec of its quota.
type evaluated struct {
	spec *quotaSpec
	QuotaState
}

func (v *evaluated) allocation() notify.Allocation {
	return notify.Allocation{Quota: v.spec.key, Consumer: v.Consumer, Direction: v.Direction, Start: v.Period.Start.Unix()}
}

// evaluateQuota updates the limit states of a quota, and returns the states of its
// allocations.
func (e *quotaEvaluator) evaluateQuota(ctx context.Context, usage *usageCache, q *sharedQuota, spec *quotaSpec, now time.Time) (all []evaluated, err error) {
	start, end := spec.at(now)
	usedBy, err := usage.usage(ctx, spec, start, end)
	if err != nil {
		return nil, err
	}
	before := q.each.Load()
	each := make(map[string]*limitState)
	for consumer, used := range usedBy {
		limits := spec.limitsOf(consumer)
		last := q.whole.Load()
		if spec.perConsumer && before != nil {
			last = (*before)[consumer]
		}
		state := spec.evaluate(used, limits, start, end, last)
		if !spec.perConsumer {
			q.whole.Store(state)
		} else if state != nil {
			each[consumer] = state
		}
		for i, limit := range limits {
			if limit > 0 {
				all = append(all, evaluated{spec, spec.stateIn(start, end, consumer, i, used[i], limit, now)})
			}
		}
	}
	if len(each) > 0 {
		q.each.Store(&each)
	} else {
		q.each.Store(nil)
	}
	return all, nil
}

// recordThresholds records the newly reached thresholds of an allocation. It reports
// whether a message was queued.
func (e *quotaEvaluator) recordThresholds(ctx context.Context, db *store.DB, v *evaluated, events notify.Events, now time.Time) (queued bool, err error) {
	reached := crossed(v.Used, v.Allocated, v.spec.thresholds)
	known := events[v.allocation()]
	isNew := func(percent int) bool { _, ok := known[percent]; return !ok }
	if !slices.ContainsFunc(reached, isNew) {
		return false, nil
	}
	alert := v.alert(e.gateway, reached, now.In(v.spec.zone).Truncate(time.Second))
	return e.notifier.Record(ctx, db, v.allocation(), &alert)
}

// markPeriods marks the current period starts in the usage store, so that it keeps the
// minutes around them.
func (e *quotaEvaluator) markPeriods(s *store.Store, specs map[*sharedQuota]*quotaSpec, now time.Time) {
	current := make(map[int64]bool)
	for _, spec := range specs {
		start, _ := spec.at(now)
		current[start.Unix()] = true
		if e.marks[start.Unix()] == nil {
			e.marks[start.Unix()] = s.Mark(start)
		}
	}
	for start, unmark := range e.marks {
		if !current[start] {
			unmark()
			delete(e.marks, start)
		}
	}
}

// setStates stores the states of all allocations in a stable order.
func (e *quotaEvaluator) setStates(all []evaluated, events notify.Events) {
	states := make([]QuotaState, len(all))
	for i := range all {
		states[i] = all[i].QuotaState
		states[i].Thresholds = all[i].thresholdStates(events)
	}
	slices.SortFunc(states, func(a, b QuotaState) int {
		return strings.Compare(a.Level+"\x00"+a.Name+"\x00"+a.Period.Name+"\x00"+a.Consumer+"\x00"+a.Direction,
			b.Level+"\x00"+b.Name+"\x00"+b.Period.Name+"\x00"+b.Consumer+"\x00"+b.Direction)
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	e.states = states
}

// report returns the states of the last evaluation.
func (e *quotaEvaluator) report() []QuotaState {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.states)
}

// dependency reports the result of the last evaluation as a health dependency.
func (e *quotaEvaluator) dependency() status.Dependency {
	e.mu.Lock()
	defer e.mu.Unlock()
	return status.Dependency{Name: "quotas of " + e.gateway, Up: e.problem == "", Error: e.problem}
}
