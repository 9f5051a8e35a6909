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

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/internal/metrics"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/pause"
	"github.com/rgate/rgate/policy"
)

// quotaEvaluator judges the quotas of a gateway by its ledger, and has it told what they
// reach. It outlives reloads. Nothing that a request does waits for it.
type quotaEvaluator struct {
	gateway  string
	ledger   func() *store.Store
	now      func() time.Time
	logger   atomic.Pointer[zap.Logger]
	notifier *notifier

	mu       sync.Mutex
	accounts map[string]*account // by the keys of their terms; guarded by mu.
	states   []QuotaState        // as of the last audit; guarded by mu.
	problem  string              // with the last audit; guarded by mu.

	// What the loop alone uses.
	attached *store.Store
	detach   func()
	marks    map[int64]func() // beginnings of periods that the ledger keeps to the minute

	wake    chan struct{}
	cancel  context.CancelFunc
	ended   sync.WaitGroup
	publish []func()
}

const (
	// What others have used shows this much after they have written it.
	evaluateInterval = 2 * time.Second
	// A configuration that is only looked at is gone by then, and the database has not
	// been opened.
	firstEvaluation = time.Second
	longestRest     = 4 * time.Second
	// How long judging all quotas may take.
	evaluateTimeout = 30 * time.Second
)

// evaluators are those of the process, by gateway.
var evaluators = caddy.NewUsagePool()

// holdEvaluator returns the evaluator of a gateway. release must be called when it is no
// longer needed.
func holdEvaluator(ctx caddy.Context, gateway string) (a *quotaEvaluator, release func(), err error) {
	value, _, err := evaluators.LoadOrNew(gateway, func() (caddy.Destructor, error) {
		a := newEvaluator(gateway)
		a.logger.Store(ctx.Logger())
		a.start()
		return a, nil
	})
	if err != nil {
		return nil, nil, err
	}
	a = value.(*quotaEvaluator)
	a.logger.Store(ctx.Logger()) // that of an older configuration ends with it
	return a, func() { _, _ = evaluators.Delete(gateway) }, metrics.Register(ctx, quotaMetrics)
}

func newEvaluator(gateway string) *quotaEvaluator {
	a := &quotaEvaluator{
		gateway: gateway, ledger: func() *store.Store { return store.For(gateway) }, now: time.Now,
		accounts: make(map[string]*account), marks: make(map[int64]func()), wake: make(chan struct{}, 1),
	}
	a.logger.Store(zap.NewNop())
	a.notifier = newNotifier(a)
	return a
}

// start begins to judge and to deliver.
func (a *quotaEvaluator) start() {
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	a.publish = []func(){
		policy.Publish(policy.Quotas, policy.RouteInfo{Gateway: a.gateway}, func() any { return a.report() }),
		policy.Publish(policy.Dependencies, policy.RouteInfo{}, a.dependency),
	}
	a.ended.Go(func() { a.loop(ctx) })
	a.ended.Go(func() { a.notifier.loop(ctx) })
}

// Destruct implements caddy.Destructor. A message that is being delivered has a little
// time to get there.
func (a *quotaEvaluator) Destruct() error {
	for _, end := range a.publish {
		end()
	}
	a.notifier.finish()
	a.cancel()
	a.ended.Wait()
	return nil
}

func (a *quotaEvaluator) loop(ctx context.Context) {
	defer a.attach(nil)
	for ok := pause.For(ctx, firstEvaluation); ok; {
		began := time.Now()
		if err := a.evaluate(ctx); ctx.Err() == nil { // else it was told to end
			a.setProblem(err)
		}
		// With very many consumers, it takes long, and shall not take all of the time.
		ok = pause.UntilWoken(ctx, a.wake, min(4*time.Since(began), longestRest), evaluateInterval)
	}
}

// setProblem keeps whether quotas can be judged, and logs it when that changes.
func (a *quotaEvaluator) setProblem(err error) {
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	a.mu.Lock()
	before := a.problem
	a.problem = problem
	a.mu.Unlock()
	switch {
	case problem != "" && before == "":
		a.logger.Load().Warn("quotas cannot be judged", zap.Error(err))
	case problem == "" && before != "":
		a.logger.Load().Info("quotas are judged again")
	}
}

// attach makes a ledger the one that is read.
func (a *quotaEvaluator) attach(l *store.Store) {
	if l == a.attached {
		return
	}
	if a.detach != nil {
		a.detach()
		a.detach = nil
	}
	for start, unmark := range a.marks {
		unmark()
		delete(a.marks, start)
	}
	if a.attached = l; l != nil {
		a.detach = l.AfterFlush(func() { pause.Wake(a.wake) })
	}
}

// joinQuota has a quota judged. What it returns is what requests look at, and how to
// leave.
func joinQuota(ctx caddy.Context, t *quotaSpec) (acc *account, leave func(), err error) {
	a, release, err := holdEvaluator(ctx, t.gateway)
	if err != nil {
		return nil, nil, err
	}
	acc, left, err := a.join(t, ctx.GetMetricsRegistry())
	if err != nil {
		release()
		return nil, nil, err
	}
	return acc, func() { left(); release() }, nil
}

// join adds the terms of a quota, which are in force until a newer configuration
// brings others.
func (a *quotaEvaluator) join(t *quotaSpec, config any) (acc *account, leave func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	acc = a.accounts[t.key]
	if acc == nil {
		acc = new(account)
		a.accounts[t.key] = acc
	}
	for _, other := range acc.held {
		if config != nil && other.config == config {
			return nil, nil, options.Errorf("name", "there is another quota with this period in the same place: give one of the two a name")
		}
	}
	mine := &holding{t, config}
	acc.held = append(acc.held, mine)
	pause.Wake(a.wake)
	return acc, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		acc.held = slices.DeleteFunc(acc.held, func(h *holding) bool { return h == mine })
		if len(acc.held) == 0 && a.accounts[t.key] == acc {
			delete(a.accounts, t.key)
		}
		pause.Wake(a.wake)
	}, nil
}

// inForce lists the accounts with the terms that hold.
func (a *quotaEvaluator) inForce() map[*account]*quotaSpec {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[*account]*quotaSpec, len(a.accounts))
	for _, acc := range a.accounts {
		all[acc] = acc.held[len(acc.held)-1].spec
	}
	return all
}

var errNoStore = errors.New("no account of bandwidth is kept here: add rgate_bandwidth")

// evaluate judges all quotas by what the ledger has, and marks what they have reached.
func (a *quotaEvaluator) evaluate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, evaluateTimeout)
	defer cancel()
	l := a.ledger()
	a.attach(l)
	quotas := a.inForce()
	if l == nil {
		return errNoStore
	}
	now := a.now()
	totals := newUsageCache(l, now)
	var all []evaluated
	for acc, t := range quotas {
		states, err := a.evaluateQuota(ctx, totals, acc, t, now)
		if err != nil {
			return fmt.Errorf("reading the account: %w", err)
		}
		all = append(all, states...)
	}
	a.keepMinutes(l, quotas, now)

	known, err := readEvents(ctx, l.DB(), now)
	if err != nil {
		return fmt.Errorf("reading what has been told: %w", err)
	}
	told := false
	for i := range all {
		fresh, err := a.recordThresholds(ctx, l, &all[i], known, now)
		if err != nil {
			return fmt.Errorf("marking a threshold: %w", err)
		}
		told = told || fresh
	}
	if told {
		pause.Wake(a.notifier.wake)
		if known, err = readEvents(ctx, l.DB(), now); err != nil {
			return fmt.Errorf("reading what has been told: %w", err)
		}
	}
	a.setStates(all, known)
	return nil
}

// evaluated is an allocation and how much of it is used.
type evaluated struct {
	spec *quotaSpec
	QuotaState
}

// evaluateQuota gives the verdicts on an account, and describes its allocations.
func (a *quotaEvaluator) evaluateQuota(ctx context.Context, totals *usageCache, acc *account, t *quotaSpec, now time.Time) (all []evaluated, err error) {
	start, end := t.at(now)
	used, err := totals.usage(ctx, t, start, end)
	if err != nil {
		return nil, err
	}
	before := acc.each.Load()
	each := make(map[string]*limitState)
	for consumer, used := range used {
		limits := t.limitsOf(consumer)
		last := acc.whole.Load()
		if t.perConsumer && before != nil {
			last = (*before)[consumer]
		}
		v := t.evaluate(used, limits, start, end, last)
		if !t.perConsumer {
			acc.whole.Store(v)
		} else if v != nil {
			each[consumer] = v
		}
		for i, limit := range limits {
			if limit > 0 {
				all = append(all, evaluated{t, t.stateIn(start, end, consumer, i, used[i], limit, now)})
			}
		}
	}
	if len(each) > 0 {
		acc.each.Store(&each)
	} else {
		acc.each.Store(nil)
	}
	return all, nil
}

// keepMinutes has the ledger keep the minutes around the beginnings of the periods.
func (a *quotaEvaluator) keepMinutes(l *store.Store, quotas map[*account]*quotaSpec, now time.Time) {
	current := make(map[int64]bool)
	for _, t := range quotas {
		start, _ := t.at(now)
		current[start.Unix()] = true
		if a.marks[start.Unix()] == nil {
			a.marks[start.Unix()] = l.Mark(start)
		}
	}
	for start, unmark := range a.marks {
		if !current[start] {
			unmark()
			delete(a.marks, start)
		}
	}
}

// setStates makes the states of all allocations readable, the names of their places in
// order.
func (a *quotaEvaluator) setStates(all []evaluated, known events) {
	states := make([]QuotaState, len(all))
	for i, j := range all {
		states[i] = j.QuotaState
		states[i].Thresholds = known.thresholds(&j)
	}
	slices.SortFunc(states, func(a, b QuotaState) int {
		return strings.Compare(a.Level+"\x00"+a.Name+"\x00"+a.Period.Name+"\x00"+a.Consumer+"\x00"+a.Direction,
			b.Level+"\x00"+b.Name+"\x00"+b.Period.Name+"\x00"+b.Consumer+"\x00"+b.Direction)
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.states = states
}

// report is what the quotas publish. What is in it does not change any more.
func (a *quotaEvaluator) report() []QuotaState {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.states)
}

// dependency tells whether quotas can be judged.
func (a *quotaEvaluator) dependency() any {
	a.mu.Lock()
	defer a.mu.Unlock()
	return policy.Dependency{Name: "quotas of " + a.gateway, Up: a.problem == "", Error: a.problem}
}
