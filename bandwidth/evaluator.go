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
	"github.com/rgate/rgate/internal/pause"
	"github.com/rgate/rgate/policy"
)

// auditor judges the quotas of a gateway by its ledger, and has it told what they
// reach. It outlives reloads. Nothing that a request does waits for it.
type auditor struct {
	gateway string
	ledger  func() *store.Ledger
	now     func() time.Time
	logger  atomic.Pointer[zap.Logger]
	courier *courier

	mu       sync.Mutex
	accounts map[string]*account // by the keys of their terms; guarded by mu.
	states   []QuotaState        // as of the last audit; guarded by mu.
	problem  string              // with the last audit; guarded by mu.

	// What the loop alone uses.
	attached *store.Ledger
	detach   func()
	marks    map[int64]func() // beginnings of periods that the ledger keeps to the minute

	wake    chan struct{}
	cancel  context.CancelFunc
	ended   sync.WaitGroup
	publish []func()
}

const (
	// What others have used shows this much after they have written it.
	auditInterval = 2 * time.Second
	// A configuration that is only looked at is gone by then, and the database has not
	// been opened.
	firstAudit  = time.Second
	longestRest = 4 * time.Second
	// How long judging all quotas may take.
	auditTimeout = 30 * time.Second
)

// auditors are those of the process, by gateway.
var auditors = caddy.NewUsagePool()

// holdAuditor returns that of a gateway. Whoever has it lets go of it by release.
func holdAuditor(ctx caddy.Context, gateway string) (a *auditor, release func(), err error) {
	value, _, err := auditors.LoadOrNew(gateway, func() (caddy.Destructor, error) {
		a := newAuditor(gateway)
		a.logger.Store(ctx.Logger())
		a.start()
		return a, nil
	})
	if err != nil {
		return nil, nil, err
	}
	a = value.(*auditor)
	a.logger.Store(ctx.Logger()) // that of an older configuration ends with it
	return a, func() { _, _ = auditors.Delete(gateway) }, policy.RegisterMetrics(ctx, quotaMetrics)
}

func newAuditor(gateway string) *auditor {
	a := &auditor{
		gateway: gateway, ledger: func() *store.Ledger { return store.LedgerOf(gateway) }, now: time.Now,
		accounts: make(map[string]*account), marks: make(map[int64]func()), wake: make(chan struct{}, 1),
	}
	a.logger.Store(zap.NewNop())
	a.courier = newCourier(a)
	return a
}

// start begins to judge and to deliver.
func (a *auditor) start() {
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	a.publish = []func(){
		policy.Publish(policy.Quotas, policy.Place{Gateway: a.gateway}, func() any { return a.report() }),
		policy.Publish(policy.Dependencies, policy.Place{}, a.dependency),
	}
	a.ended.Go(func() { a.loop(ctx) })
	a.ended.Go(func() { a.courier.loop(ctx) })
}

// Destruct implements caddy.Destructor. A message that is being delivered has a little
// time to get there.
func (a *auditor) Destruct() error {
	for _, end := range a.publish {
		end()
	}
	a.courier.finish()
	a.cancel()
	a.ended.Wait()
	return nil
}

func (a *auditor) loop(ctx context.Context) {
	defer a.attach(nil)
	for ok := pause.For(ctx, firstAudit); ok; {
		began := time.Now()
		if err := a.audit(ctx); ctx.Err() == nil { // else it was told to end
			a.note(err)
		}
		// With very many consumers, it takes long, and shall not take all of the time.
		ok = pause.UntilWoken(ctx, a.wake, min(4*time.Since(began), longestRest), auditInterval)
	}
}

// note keeps whether quotas can be judged, and logs it when that changes.
func (a *auditor) note(err error) {
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
func (a *auditor) attach(l *store.Ledger) {
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
func joinQuota(ctx caddy.Context, t *terms) (acc *account, leave func(), err error) {
	a, release, err := holdAuditor(ctx, t.gateway)
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
func (a *auditor) join(t *terms, config any) (acc *account, leave func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	acc = a.accounts[t.key]
	if acc == nil {
		acc = new(account)
		a.accounts[t.key] = acc
	}
	for _, other := range acc.held {
		if config != nil && other.config == config {
			return nil, nil, policy.Optionf("name", "there is another quota with this period in the same place: give one of the two a name")
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
func (a *auditor) inForce() map[*account]*terms {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[*account]*terms, len(a.accounts))
	for _, acc := range a.accounts {
		all[acc] = acc.held[len(acc.held)-1].terms
	}
	return all
}

var errNoLedger = errors.New("no account of bandwidth is kept here: add rgate_bandwidth")

// audit judges all quotas by what the ledger has, and marks what they have reached.
func (a *auditor) audit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	l := a.ledger()
	a.attach(l)
	quotas := a.inForce()
	if l == nil {
		return errNoLedger
	}
	now := a.now()
	totals := newTotals(l, now)
	var all []judged
	for acc, t := range quotas {
		states, err := a.judge(ctx, totals, acc, t, now)
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
		fresh, err := a.mark(ctx, l, &all[i], known, now)
		if err != nil {
			return fmt.Errorf("marking a threshold: %w", err)
		}
		told = told || fresh
	}
	if told {
		pause.Wake(a.courier.wake)
		if known, err = readEvents(ctx, l.DB(), now); err != nil {
			return fmt.Errorf("reading what has been told: %w", err)
		}
	}
	a.keep(all, known)
	return nil
}

// judged is an allocation and how much of it is used.
type judged struct {
	terms *terms
	QuotaState
}

// judge gives the verdicts on an account, and describes its allocations.
func (a *auditor) judge(ctx context.Context, totals *totals, acc *account, t *terms, now time.Time) (all []judged, err error) {
	start, end := t.at(now)
	used, err := totals.usage(ctx, t, start, end)
	if err != nil {
		return nil, err
	}
	before := acc.each.Load()
	each := make(map[string]*verdict)
	for consumer, used := range used {
		limits := t.limitsOf(consumer)
		last := acc.whole.Load()
		if t.perConsumer && before != nil {
			last = (*before)[consumer]
		}
		v := t.judge(used, limits, start, end, last)
		if !t.perConsumer {
			acc.whole.Store(v)
		} else if v != nil {
			each[consumer] = v
		}
		for i, limit := range limits {
			if limit > 0 {
				all = append(all, judged{t, t.stateIn(start, end, consumer, i, used[i], limit, now)})
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
func (a *auditor) keepMinutes(l *store.Ledger, quotas map[*account]*terms, now time.Time) {
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

// keep makes the states of all allocations readable, the names of their places in
// order.
func (a *auditor) keep(all []judged, known events) {
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
func (a *auditor) report() []QuotaState {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.states)
}

// dependency tells whether quotas can be judged.
func (a *auditor) dependency() any {
	a.mu.Lock()
	defer a.mu.Unlock()
	return policy.Dependency{Name: "quotas of " + a.gateway, Up: a.problem == "", Error: a.problem}
}
