package upstream

import (
	"sync"
	"time"

	"github.com/rgate/rgate/internal/monotime"
)

// RetryBudget configures a budget.
type RetryBudget struct {
	Ratio        *float64 // the share of requests that may be retries; nil: 0.2
	MinPerSecond *int     // retries that are always allowed; nil: 10
}

const (
	defaultRetryRatio     = 0.2
	defaultRetryPerSecond = 10
)

// newBudget returns a budget, or nil without options.
func newBudget(o *RetryBudget) *budget {
	if o == nil {
		return nil
	}
	b := &budget{ratio: defaultRetryRatio, perSlice: defaultRetryPerSecond, now: monotime.Now}
	if o.Ratio != nil {
		b.ratio = *o.Ratio
	}
	if o.MinPerSecond != nil {
		b.perSlice = *o.MinPerSecond
	}
	return b
}

// budget limits the retries of a service, so that they do not multiply an overload: to a
// share of its requests of the last ten seconds, and some more for services with few
// requests. It follows Finagle's RetryBudget; for the reasons, see Google's Site
// Reliability Engineering (2016), chapter 21.
type budget struct {
	ratio    float64
	perSlice int // retries per second that are always allowed
	now      func() time.Duration

	mu     sync.Mutex
	slices [10]budgetSlice // Guarded by mu.
	last   int64           // the number of the newest slice. Guarded by mu.
}

// budgetSlice counts what happened in one second.
type budgetSlice struct{ requests, retries int }

// request counts a request. A nil budget has no limit.
func (b *budget) request() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current().requests++
}

// retry reports whether a request may be sent again, and counts it if so.
func (b *budget) retry() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	current := b.current()
	var all budgetSlice
	for _, s := range b.slices {
		all.requests += s.requests
		all.retries += s.retries
	}
	if float64(all.retries+1) > b.ratio*float64(all.requests)+float64(b.perSlice*len(b.slices)) {
		return false
	}
	current.retries++
	return true
}

// current returns the slice of the current second. It must be called with mu held.
func (b *budget) current() *budgetSlice {
	n, now := int64(len(b.slices)), int64(b.now()/time.Second)
	if now-b.last >= n {
		b.slices, b.last = [10]budgetSlice{}, now
	}
	for b.last < now {
		b.last++
		b.slices[b.last%n] = budgetSlice{}
	}
	return &b.slices[b.last%n]
}
