package upstream

import (
	"sync"
	"time"

	"github.com/rgate/rgate/internal/monotime"
)

// RetryBudget configures the retry budget of a service.
type RetryBudget struct {
	Ratio        *float64 // maximum ratio of retries to requests; nil: 0.2
	MinPerSecond *int     // retries that are allowed regardless of the ratio; nil: 10
}

const (
	defaultRetryRatio     = 0.2
	defaultRetryPerSecond = 10
)

// newBudget returns a budget, or nil if o is nil.
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

// budget limits the retries of a service during an overload. It allows a ratio of the
// requests of the last ten seconds, plus a fixed number per second for services with
// few requests. It is modeled on Finagle's RetryBudget. Google's Site Reliability
// Engineering (2016), chapter 21, explains the reasons.
type budget struct {
	ratio    float64
	perSlice int // retries per second that are allowed regardless of the ratio
	now      func() time.Duration

	mu     sync.Mutex
	slices [10]budgetSlice // Guarded by mu.
	last   int64           // number of the newest slice. Guarded by mu.
}

// budgetSlice counts the requests and retries of one second.
type budgetSlice struct{ requests, retries int }

// request counts a request. A nil budget counts nothing.
func (b *budget) request() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current().requests++
}

// retry reports whether a retry is allowed. It counts an allowed retry. A nil budget
// allows all retries.
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

// current returns the slice of the current second. The caller must hold mu.
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
